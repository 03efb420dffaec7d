package openapitest

import (
	"testing"

	"github.com/getkin/kin-openapi/openapi3filter"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	openapi3filter.RegisterBodyDecoder(ndjsonType, openapi3filter.JSONBodyDecoder) // of a line
	goleak.VerifyTestMain(m)
}
