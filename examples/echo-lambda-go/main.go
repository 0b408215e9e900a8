// The function: it answers with the event that it was given.
package main

import (
	"context"

	"github.com/aws/aws-lambda-go/lambda"
)

// echo has the method that aws-lambda-go calls a handler by. It gets the event's bytes and returns
// the answer's, so nothing is read and written anew. A function that wants the event as a value is
// a plain func(context.Context, Event) (Answer, error) instead.
type echo struct{}

// Invoke returns the event.
func (echo) Invoke(_ context.Context, event []byte) ([]byte, error) {
	return event, nil
}

func main() {
	lambda.Start(echo{})
}
