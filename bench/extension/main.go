// The smallest extension that takes part in each call: it hears of it and asks for the next.
// With EXTENSION_TELEMETRY set it also has all telemetry sent to itself, and throws it away.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

const subscription = `{"schemaVersion":"2022-12-13","types":["platform","function","extension"],` +
	`"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:%d"}}`

var base = "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API")

func call(method, path, header, value, body string) http.Header {
	request, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set(header, value)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != 200 {
		log.Fatal(response.Status, err)
	}
	return response.Header
}

func discard(_ http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(io.Discard, request.Body)
}

func main() {
	name := filepath.Base(os.Args[0])
	header := call("POST", "/2020-01-01/extension/register", "Lambda-Extension-Name", name,
		`{"events":["INVOKE"]}`)
	id := header.Get("Lambda-Extension-Identifier")
	if os.Getenv("EXTENSION_TELEMETRY") != "" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Fatal(http.Serve(listener, http.HandlerFunc(discard))) }()
		port := listener.Addr().(*net.TCPAddr).Port
		call("PUT", "/2022-07-01/telemetry", "Lambda-Extension-Identifier", id,
			fmt.Sprintf(subscription, port))
	}
	for {
		call("GET", "/2020-01-01/extension/event/next", "Lambda-Extension-Identifier", id, "")
	}
}
