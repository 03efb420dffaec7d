package server

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// describedAPI is the part of the description that the code has too.
type describedAPI struct {
	Servers []struct{ URL string }
	Paths   map[string]map[string]json.RawMessage
}

func (a *apiTest) described() (d describedAPI) {
	a.t.Helper()
	w := a.call("GET", "/v1/openapi.json", "", "")
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != 200 {
		a.t.Fatalf("%d, %v", w.Code, err)
	}
	return d
}

// The description has the endpoints of the code, with their query parameters, and no others.
func TestOpenAPI_DescribesEveryEndpoint(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	described, routed := map[string][]string{}, map[string][]string{}
	for path, item := range a.described().Paths {
		for method, text := range item {
			if method == "parameters" {
				continue
			}
			var operation struct {
				Parameters []map[string]any
			}
			if err := json.Unmarshal(text, &operation); err != nil {
				t.Fatal(err)
			}
			described[strings.ToUpper(method)+" "+path] = queryOf(operation.Parameters)
		}
	}
	for _, route := range a.api.routes {
		for method, endpoint := range route.methods {
			query := append([]string{}, endpoint.query...)
			slices.Sort(query)
			routed[method+" "+route.pattern] = query
		}
	}
	if !maps.EqualFunc(described, routed, slices.Equal[[]string]) {
		t.Errorf("described are %v\nrouted are %v", described, routed)
	}
}

// queryOf returns the names of the query parameters.
func queryOf(parameters []map[string]any) []string {
	names := []string{}
	for _, p := range parameters {
		switch ref, _ := p["$ref"].(string); {
		case p["in"] == "query":
			names = append(names, p["name"].(string)) // or the test fails
		case ref == "#/components/parameters/Code" || ref == "#/components/parameters/Reason":
			names = append(names, strings.ToLower(ref[strings.LastIndex(ref, "/")+1:]))
		}
	}
	slices.Sort(names)
	return names
}

// The description has the errors of a body for each endpoint that takes one.
func TestOpenAPI_DescribesErrorsOfBodies(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for path, item := range a.described().Paths {
		if item["post"] == nil {
			continue
		}
		var post struct{ Responses map[string]json.RawMessage }
		if err := json.Unmarshal(item["post"], &post); err != nil {
			t.Fatal(err)
		}
		for _, status := range []string{"400", "408", "413", "415"} {
			if post.Responses[status] == nil {
				t.Errorf("POST %s lacks %s", path, status)
			}
		}
	}
}

// The description needs no key, and names the path of the API.
func TestOpenAPI_IsPublicAndKnowsItsPath(t *testing.T) {
	for prefix, want := range map[string]string{"": "/", "/shoal": "/shoal"} {
		a := newAPITest(t, apiOptions{PathPrefix: prefix, Keys: keysOf()})
		if servers := a.described().Servers; len(servers) != 1 || servers[0].URL != want {
			t.Errorf("servers are %v, want %s", servers, want)
		}
		for _, method := range []string{"POST", "OPTIONS", "DELETE"} {
			if w := a.do(httptest.NewRequest(method, "/v1/openapi.json", nil)); w.Code != 403 {
				t.Errorf("%s without a key: %d", method, w.Code)
			}
		}
	}
}

// A page of another origin gets no permission to read any answer.
func TestAPI_AllowsNoOtherOrigin(t *testing.T) {
	a := newAPITest(t, apiOptions{})
	for _, method := range []string{"OPTIONS", "GET", "POST"} {
		for _, key := range []string{"", "Bearer first-key"} {
			r := httptest.NewRequest(method, "/v1/uploads/up-1/messages", strings.NewReader(note))
			r.Header = http.Header{
				"Origin": {"https://page.example"}, "Access-Control-Request-Method": {"POST"},
				"Access-Control-Request-Headers": {"authorization, content-type"},
			}
			if key != "" {
				r.Header.Set("Authorization", key)
			}
			for name := range a.do(r).Header() {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s is answered with %s", method, name)
				}
			}
		}
	}
}
