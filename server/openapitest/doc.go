// Package openapitest has tests only: it sends requests to a running server and checks every request and every answer
// against the OpenAPI description that the server has. It is a module of its own because of its validator.
package openapitest
