// An extension in Go, on net/http alone: there is no client of AWS's for extensions in Go.
// It appends what it hears to the file RECORDER_FILE, a line each.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

var base = "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API")

var lock sync.Mutex

func appendLine(line []byte) {
	lock.Lock()
	defer lock.Unlock()
	file, err := os.OpenFile(os.Getenv("RECORDER_FILE"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(append(line, '\n')); err != nil {
		log.Fatal(err)
	}
}

func call(method, path, header, value string, body any) (http.Header, []byte) {
	var encoded bytes.Buffer
	if err := json.NewEncoder(&encoded).Encode(body); err != nil {
		log.Fatal(err)
	}
	request, err := http.NewRequest(method, base+path, &encoded)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set(header, value)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		log.Fatalf("%s: %d %s %v", path, response.StatusCode, answer, err)
	}
	return response.Header, answer
}

func receive(_ http.ResponseWriter, request *http.Request) {
	var records []json.RawMessage
	if err := json.NewDecoder(request.Body).Decode(&records); err != nil {
		log.Fatal(err)
	}
	for _, record := range records {
		appendLine(record)
	}
}

func main() {
	var events []string // none: encoded as null, which is how Go says it
	header, _ := call("POST", "/2020-01-01/extension/register", "Lambda-Extension-Name",
		filepath.Base(os.Args[0]), map[string]any{"events": events})
	id := header.Get("Lambda-Extension-Identifier")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, http.HandlerFunc(receive))) }()
	port := listener.Addr().(*net.TCPAddr).Port
	call("PUT", "/2022-07-01/telemetry", "Lambda-Extension-Identifier", id, map[string]any{
		"schemaVersion": "2025-01-29",
		"types":         []string{"platform", "function"},
		"buffering":     map[string]int{"maxItems": 1000, "maxBytes": 262144, "timeoutMs": 25},
		"destination": map[string]string{
			"protocol": "HTTP", "URI": fmt.Sprintf("http://sandbox.localdomain:%d/", port),
		},
	})
	call("GET", "/2020-01-01/extension/event/next", "Lambda-Extension-Identifier", id, nil)
}
