"""Lambda Server: the AWS Invoke API for any function, over RabbitMQ or straight to a rapid."""
