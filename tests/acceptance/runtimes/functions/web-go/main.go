// The demo site of net/http, behind lambdaurl.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-lambda-go/lambdaurl"
)

func answer(response http.ResponseWriter, members map[string]string) {
	response.Header().Set("Content-Type", "application/json")
	json.NewEncoder(response).Encode(members)
}

func main() {
	site := http.NewServeMux()
	site.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		name := request.URL.Query().Get("name")
		if name == "" {
			name = "you"
		}
		response.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(response, "<p>Hello %s</p>", name)
	})
	site.HandleFunc("/form", func(response http.ResponseWriter, request *http.Request) {
		answer(response, map[string]string{
			"name": request.FormValue("name"), "text": request.FormValue("text"),
		})
	})
	site.HandleFunc("/upload", func(response http.ResponseWriter, request *http.Request) {
		file, header, err := request.FormFile("file")
		if err != nil {
			http.Error(response, err.Error(), http.StatusBadRequest)
			return
		}
		data, _ := io.ReadAll(file)
		answer(response, map[string]string{
			"name": header.Filename, "sha256": fmt.Sprintf("%x", sha256.Sum256(data)),
		})
	})
	site.HandleFunc("/login", func(response http.ResponseWriter, request *http.Request) {
		name := http.Cookie{Name: "name", Value: request.FormValue("name"), HttpOnly: true}
		http.SetCookie(response, &name)
		http.SetCookie(response, &http.Cookie{Name: "seen", Value: "1"})
		http.Redirect(response, request, "/me", http.StatusSeeOther)
	})
	site.HandleFunc("/me", func(response http.ResponseWriter, request *http.Request) {
		// lambdaurl leaves cookies in the event: there they are no header.
		event, _ := lambdaurl.RequestFromContext(request.Context())
		request.Header.Set("Cookie", strings.Join(event.Cookies, "; "))
		name, err := request.Cookie("name")
		if err != nil {
			http.Error(response, err.Error(), http.StatusForbidden)
			return
		}
		answer(response, map[string]string{"name": name.Value})
	})
	site.HandleFunc("/download", func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Content-Type", "application/octet-stream")
		var data [256]byte
		for number := range data {
			data[number] = byte(number)
		}
		response.Write(data[:])
	})
	site.HandleFunc("/events", func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Content-Type", "text/event-stream")
		for number := 1; number <= 2; number++ {
			fmt.Fprintf(response, "data: %d\n\n", number)
		}
	})
	lambdaurl.Start(site)
}
