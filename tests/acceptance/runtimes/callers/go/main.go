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

// stream makes the file FIRST_PART when the first part has come.
func stream(client *lambda.Client, function, payload string) (string, error) {
	answer, err := client.InvokeWithResponseStream(context.Background(),
		&lambda.InvokeWithResponseStreamInput{FunctionName: &function, Payload: []byte(payload)})
	if err != nil {
		return "", err
	}
	var parts []byte
	code := "no end"
	for event := range answer.GetStream().Events() {
		switch event := event.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			parts = append(parts, event.Value.Payload...)
			os.WriteFile(os.Getenv("FIRST_PART"), nil, 0o600)
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			code = aws.ToString(event.Value.ErrorCode)
		}
	}
	return fmt.Sprintf("ok\t%d\t%s\t%s", answer.StatusCode, code, parts), answer.GetStream().Err()
}

func invoke(client *lambda.Client, kind, function, payload string) (string, error) {
	answer, err := client.Invoke(context.Background(), &lambda.InvokeInput{
		FunctionName:   &function,
		InvocationType: types.InvocationType(kind),
		Payload:        []byte(payload),
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("ok\t%d\t%s\t%s",
		answer.StatusCode, aws.ToString(answer.FunctionError), answer.Payload), nil
}

func call(client *lambda.Client, kind, function, payload string) (line string) {
	var err error
	if kind == "Stream" {
		line, err = stream(client, function, payload)
	} else {
		line, err = invoke(client, kind, function, payload)
	}
	if err == nil {
		return line
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
