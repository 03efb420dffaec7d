package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	helmlint "helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	sigsyaml "sigs.k8s.io/yaml"
)

// foreign lists kinds that Kubernetes itself does not define, so that nothing here knows their fields.
var foreign = map[string]bool{"monitoring.coreos.com/v1 ServiceMonitor": true}

// lintChart does the work of helm lint --strict and helm template, and decodes the objects as the API server does with
// strict field validation: an unknown or repeated field, or one of the wrong type, is a problem.
func lintChart(folder string, files []string) (problems []string, err error) {
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // named by the caller
		if err != nil {
			return nil, err
		}
		values, err := chartutil.ReadValues(text)
		if err != nil {
			return nil, err
		}
		for _, m := range helmlint.All(folder, values, "default", true).Messages {
			if m.Severity >= support.WarningSev {
				problems = append(problems, fmt.Sprintf("%s: helm lint: %v", file, m.Err))
			}
		}
		objects, err := render(folder, values)
		if err != nil {
			return problems, fmt.Errorf("%s: %w", file, err)
		}
		for name, text := range objects {
			for _, problem := range decode(text) {
				problems = append(problems, fmt.Sprintf("%s: %s: %s", file, name, problem))
			}
		}
	}
	return problems, nil
}

// render returns the text of each template.
func render(folder string, values chartutil.Values) (map[string]string, error) {
	chart, err := loader.Load(folder)
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: "r", Namespace: "n", IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(chart, all)
}

// decode decodes each object of a rendered template.
func decode(text string) (problems []string) {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return problems
		}
		if err != nil {
			return append(problems, err.Error())
		}
		var head struct{ APIVersion, Kind string }
		if err := sigsyaml.Unmarshal(document, &head); err != nil {
			problems = append(problems, err.Error())
			continue
		}
		if head.Kind == "" && len(bytes.TrimSpace(document)) == 0 || foreign[head.APIVersion+" "+head.Kind] {
			continue
		}
		if _, _, err := decoder.Decode(document, nil, nil); err != nil {
			problems = append(problems, strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
}
