// Answers every event with itself; {"fail": true} with an error.
package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/aws/aws-lambda-go/lambda"
)

type wish struct {
	Fail bool `json:"fail"`
}

func handle(_ context.Context, event json.RawMessage) (json.RawMessage, error) {
	var asked wish
	if json.Unmarshal(event, &asked) == nil && asked.Fail {
		return nil, errors.New("on purpose")
	}
	return event, nil
}

func main() {
	lambda.Start(handle)
}
