package main

import (
	"fmt"
	"os"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

// lintEnvoy decodes a bootstrap configuration as Envoy does, extensions included, and applies the validation rules of
// its API. It does not start Envoy, so references between parts are not resolved.
func lintEnvoy(path string) (problems []string, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // named by the caller
	if err != nil {
		return nil, err
	}
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	config := new(bootstrap.Bootstrap)
	if err := protojson.Unmarshal(asJSON, config); err != nil {
		return nil, err
	}
	validate(config, &problems)
	return problems, nil
}

// validate applies the rules of a message and of the messages that it wraps in Any.
func validate(message proto.Message, problems *[]string) {
	if m, ok := message.(interface{ ValidateAll() error }); ok {
		if err := m.ValidateAll(); err != nil {
			*problems = append(*problems, err.Error())
		}
	}
	visitAny(message.ProtoReflect(), func(wrapped *anypb.Any) {
		inner, err := wrapped.UnmarshalNew()
		if err != nil {
			*problems = append(*problems, fmt.Sprintf("%s: %v", wrapped.TypeUrl, err))
			return
		}
		validate(inner, problems)
	})
}

// visitAny calls visit for each Any below a message.
func visitAny(m protoreflect.Message, visit func(*anypb.Any)) {
	if wrapped, ok := m.Interface().(*anypb.Any); ok {
		visit(wrapped)
		return
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Message() == nil {
			return true
		}
		switch {
		case field.IsList():
			for i := range value.List().Len() {
				visitAny(value.List().Get(i).Message(), visit)
			}
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					visitAny(v.Message(), visit)
					return true
				})
			}
		default:
			visitAny(value.Message(), visit)
		}
		return true
	})
}
