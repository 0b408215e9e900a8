"""Tools round the product: the local stack of ``make up``, its broker, the tests' set-up."""
