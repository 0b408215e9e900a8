// A page that shows server-sent events, behind a function URL that streams.
//
// The page tells the function of the first event when it has come, and only then the second is
// sent. Instances know of each other by the file SEEN.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambdaurl"
)

const page = `<!DOCTYPE html>
<title>waiting</title>
<script>
new EventSource("events").onmessage = async ({ data }) => {
  document.title += " " + data;
  await fetch("seen?" + data, { method: "POST" });
};
</script>`

func main() {
	seen := os.Getenv("SEEN")
	pages := http.NewServeMux()
	pages.HandleFunc("/", func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Content-Type", "text/html")
		io.WriteString(response, page)
	})
	pages.HandleFunc("/seen", func(response http.ResponseWriter, request *http.Request) {
		os.WriteFile(seen+"-"+request.URL.RawQuery, nil, 0o600)
	})
	pages.HandleFunc("/events", func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Content-Type", "text/event-stream")
		for number := 1; number <= 2; number++ {
			fmt.Fprintf(response, "data: %d\n\n", number)
			for !exists(fmt.Sprintf("%s-%d", seen, number)) {
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	lambdaurl.Start(pages)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
