// Echo answers every invocation with the payload it got, byte for byte.
package main

import (
	"context"

	"github.com/aws/aws-lambda-go/lambda"
)

type echo struct{}

// Invoke takes the raw payload, so that no JSON decoding of ours is measured.
func (echo) Invoke(_ context.Context, payload []byte) ([]byte, error) {
	return payload, nil
}

func main() {
	lambda.Start(echo{})
}
