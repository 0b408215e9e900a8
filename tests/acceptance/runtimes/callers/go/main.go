// Calls functions with AWS's SDK for Go; see caller_rows.py for its lines.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
)

func call(client *lambda.Client, kind, function, payload string) string {
	answer, err := client.Invoke(context.Background(), &lambda.InvokeInput{
		FunctionName:   &function,
		InvocationType: types.InvocationType(kind),
		Payload:        []byte(payload),
	})
	if err == nil {
		return fmt.Sprintf("ok\t%d\t%s\t%s",
			answer.StatusCode, aws.ToString(answer.FunctionError), answer.Payload)
	}
	var status *awshttp.ResponseError
	var fault smithy.APIError
	if !errors.As(err, &status) || !errors.As(err, &fault) {
		return fmt.Sprintf("exception\t%T\t0\t%v", err, err)
	}
	name := fmt.Sprintf("%T", fault) // *types.ResourceNotFoundException
	return fmt.Sprintf("exception\t%s\t%d\t%s",
		strings.TrimPrefix(name, "*types."), status.HTTPStatusCode(), fault.ErrorMessage())
}

func main() {
	client := lambda.New(lambda.Options{
		BaseEndpoint: &os.Args[1],
		Region:       "us-east-1",
		Credentials: aws.CredentialsProviderFunc(
			func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: "dummy", SecretAccessKey: "dummy"}, nil
			}),
		RetryMaxAttempts: 1,
	})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), "\t", 3)
		fmt.Println(call(client, parts[0], parts[1], parts[2]))
	}
}
