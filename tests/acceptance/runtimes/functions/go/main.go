// The behaviours of the matrix for aws-lambda-go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-lambda-go/lambdaurl"
)

type wish struct {
	Do      string `json:"do"`
	N       int    `json:"n"`
	Seconds int    `json:"seconds"`
	Data    string `json:"data"`
	Bytes   int    `json:"bytes"`
}

var calls = 0

// handle does what "do" asks for; any other event is answered with itself.
func handle(ctx context.Context, event json.RawMessage) (any, error) {
	calls++
	var asked wish
	if json.Unmarshal(event, &asked) != nil {
		return event, nil
	}
	switch asked.Do {
	case "fail":
		fail()
	case "context":
		return describe(ctx), nil
	case "count":
		return map[string]int{"n": asked.N, "count": calls}, nil
	case "sleep":
		time.Sleep(time.Duration(asked.Seconds) * time.Second)
	case "size":
		return map[string]int{"bytes": len(asked.Data)}, nil
	case "big":
		return strings.Repeat("x", asked.Bytes-len(`""`)), nil
	}
	return event, nil
}

// fail panics: an error that is returned has no stack in Go.
func fail() {
	panic("on purpose")
}

func describe(ctx context.Context) map[string]any {
	known, _ := lambdacontext.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	return map[string]any{
		"request_id":     known.AwsRequestID,
		"arn":            known.InvokedFunctionArn,
		"name":           lambdacontext.FunctionName,
		"version":        lambdacontext.FunctionVersion,
		"memory_mb":      lambdacontext.MemoryLimitInMB,
		"remaining_ms":   time.Until(deadline).Milliseconds(),
		"trace_id":       os.Getenv("_X_AMZN_TRACE_ID"),
		"client_context": known.ClientContext.Custom,
	}
}

type parts struct {
	Parts []string `json:"parts"`
	Until string   `json:"until"`
	Fails bool     `json:"fails"`
}

// stream writes the parts, the second when there is the file "until"; then it fails if told so.
func stream(_ context.Context, event parts) (io.Reader, error) {
	reader, writer := io.Pipe()
	go func() {
		for number, part := range event.Parts {
			if number == 1 {
				waitFor(event.Until)
			}
			io.WriteString(writer, part)
		}
		if event.Fails {
			writer.CloseWithError(errors.New("in the middle"))
		}
		writer.Close()
	}()
	return reader, nil
}

// serve does the same for a request of a function URL, whose body is the event.
func serve(response http.ResponseWriter, request *http.Request) {
	var event parts
	if err := json.NewDecoder(request.Body).Decode(&event); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	response.Header().Set("Content-Type", "text/x")
	for number, part := range event.Parts {
		if number == 1 {
			waitFor(event.Until)
		}
		io.WriteString(response, part)
	}
}

func waitFor(file string) {
	for {
		if _, err := os.Stat(file); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func main() {
	if os.Getenv("FAIL_INIT") != "" {
		log.Fatal("init on purpose")
	}
	switch os.Getenv("_HANDLER") {
	case "stream":
		lambda.Start(stream)
	case "url":
		lambdaurl.Start(http.HandlerFunc(serve))
	default:
		lambda.Start(handle)
	}
}
