package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/shoal-go/shoal/manager"
)

// given is a setting that stands in the environment or in the file.
type given struct {
	key    string // how the user has called it, and where
	values []string
}

// settings finds the values of flags that are not on the command line, and collects the errors of all values, so that
// they are reported together. It belongs to one run, and one goroutine.
type settings struct {
	env        map[string]string
	file       map[string]given
	loaded     bool
	unreadable bool              // there is a file, but none of its settings are known
	others     []string          // keys of the file that are for other commands
	keys       map[string]string // by flag: how the user has called it, where that is not --flag
	complaints usageError
	warnings   []string // about settings that work, but probably not as meant
}

func newSettings(env []string) *settings {
	s := &settings{env: make(map[string]string), keys: make(map[string]string)}
	for _, entry := range env {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" {
			s.env[name] = value
		}
	}
	return s
}

// variable returns the name of a flag's environment variable.
func variable(flag string) string {
	return "SHOAL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// key returns how the user has called a flag, for a complaint.
func (s *settings) key(flag string) string {
	if key, ok := s.keys[flag]; ok {
		return key
	}
	return "--" + flag
}

// onCommandLine is the precedence of a flag on the command line.
const onCommandLine = 2

// precedence returns a larger number for a flag on the command line than for a setting in the environment, and for that
// a larger one than for a setting in the file.
func (s *settings) precedence(flag string) int {
	key, elsewhere := s.keys[flag]
	switch {
	case !elsewhere:
		return onCommandLine
	case key == variable(flag):
		return 1
	}
	return 0
}

// complain records that a flag's value is wrong, with the expected form.
func (s *settings) complain(flag, value, want string) {
	s.note(fmt.Sprintf("%s is %q, want %s", s.key(flag), value, want))
}

// refuse notes a complaint about a flag in words of its own: the value is a secret, or missing.
func (s *settings) refuse(flag, problem string) {
	s.note(s.key(flag) + " " + problem)
}

// warn notes that a flag's value works, but probably not as meant.
func (s *settings) warn(flag, problem string) {
	s.warnings = append(s.warnings, "warning: "+s.key(flag)+" "+problem)
}

// note adds complaints that are not about a flag.
func (s *settings) note(complaints ...string) { s.complaints = append(s.complaints, complaints...) }

// check has a command check its settings, and returns all complaints, or nil. If the file cannot be read, there are no
// further ones: a setting that is missing may be in it.
func (s *settings) check(command any) error {
	if c, ok := command.(checker); ok && !s.unreadable {
		c.check(s)
	}
	return s.err()
}

// err returns all complaints, or nil.
func (s *settings) err() error {
	if len(s.complaints) == 0 {
		return nil
	}
	return s.complaints
}

// Resolve is called by kong for each flag of the command that is not on the command line.
func (s *settings) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if flag.Name == "help" {
		return nil, nil
	}
	if !s.loaded {
		s.loaded = true
		s.load(ctx)
	}
	found, ok := s.file[flag.Name]
	if value, set := s.env[variable(flag.Name)]; set {
		found, ok = given{variable(flag.Name), []string{value}}, true
		if flag.IsSlice() {
			found.values = strings.Split(value, ",")
		}
	}
	if !ok {
		return nil, nil
	}
	s.keys[flag.Name] = found.key
	if len(found.values) != 1 && !flag.IsSlice() {
		s.refuse(flag.Name, "is a list, want one value")
		return nil, nil
	}
	return found, nil
}

// Validate implements kong.Resolver. Errors are collected in complaints instead.
func (s *settings) Validate(*kong.Application) error { return nil }

// load reads the file that --config or its variable names, if any. A command without settings needs none. A check of a
// server's health takes no offence at settings of others: an edited file that the server has refused, or does not know
// yet, must not have the server restarted.
func (s *settings) load(ctx *kong.Context) {
	if command := ctx.Selected(); command == nil || len(command.Flags) == 0 {
		return
	}
	_, isHealth := selected(ctx).(*healthCommand)
	if !isHealth {
		s.checkVariables(flagNames(ctx.Model.Node))
	}
	key, path := variable("config"), s.env[variable("config")]
	for _, element := range ctx.Path {
		if element.Flag != nil && element.Flag.Name == "config" {
			key, path = "--config", ctx.Value(element).String()
		}
	}
	if path == "" {
		return
	}
	var complaints []string
	s.file, complaints = readFile(key, path, flagNames(ctx.Model.Node))
	s.unreadable = s.file == nil
	own := make(map[string]bool)
	for _, flag := range ctx.Flags() {
		own[flag.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(s.file)) {
		if !own[name] {
			s.others = append(s.others, name)
		}
	}
	if !isHealth || s.unreadable {
		s.note(complaints...)
	}
}

// checkVariables complains of environment variables that are probably meant as settings. Others that begin with SHOAL_
// are left alone: a container platform sets some of its own for a service of that name.
func (s *settings) checkVariables(flags map[string]bool) {
	known := map[string]bool{variable("config"): true}
	for name := range flags {
		known[variable(name)] = true
	}
	for _, name := range slices.Sorted(maps.Keys(s.env)) {
		if !strings.HasPrefix(name, "SHOAL_") || known[name] {
			continue
		}
		if likely := nearest(name, known, 1); likely != "" {
			s.note(fmt.Sprintf("the environment variable %s is unknown; did you mean %s?", name, likely))
		}
	}
}

// flagNames returns the names of the flags of all commands that may stand in the file. One file serves all
// commands, so one's key is not unknown to the other.
func flagNames(node *kong.Node) map[string]bool {
	names := make(map[string]bool)
	for _, flag := range node.Flags {
		names[flag.Name] = true
	}
	for _, child := range node.Children {
		for name := range flagNames(child) {
			names[name] = true
		}
	}
	delete(names, "help")
	delete(names, "config")
	return names
}

// newMapper returns kong's way to a flag's value. A value that parse refuses is a complaint, and the default
// stands for it, so that the values after it are looked at, too.
func newMapper[T any](s *settings, parse func(text string, tag *kong.Tag) (T, error)) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		token, err := popValue(ctx)
		if err != nil {
			return err
		}
		text := textsOf(token)[0]
		value, err := parse(text, ctx.Value.Tag)
		isFlag := ctx.Value.Flag != nil
		spaced := isFlag && text != strings.TrimSpace(text) && !ctx.Value.Tag.Has("blank")
		switch {
		case err != nil && !isFlag:
			return fmt.Errorf("it is %q, want %w", text, err)
		case spaced:
			s.refuse(ctx.Value.Name, "begins or ends with white space, such as the end of a line; want the value alone")
		case err != nil:
			s.complain(ctx.Value.Name, text, err.Error())
		}
		if spaced || err != nil {
			value, _ = parse(ctx.Value.Default, ctx.Value.Tag)
		}
		target.Set(reflect.ValueOf(value).Convert(target.Type()))
		return nil
	}
}

// popValue returns the next value of the command line. kong's error would repeat an argument that begins with a dash,
// which may be a secret.
func popValue(ctx *kong.DecodeContext) (kong.Token, error) {
	token := ctx.Scan.Pop()
	if !token.IsValue() {
		return token, fmt.Errorf("a value is missing, want --%s=VALUE if the value begins with a dash", ctx.Value.Name)
	}
	return token, nil
}

// textsOf returns the values that kong hands over: one of the command line, or those of a setting.
func textsOf(token kong.Token) []string {
	if found, ok := token.Value.(given); ok {
		return found.values
	}
	return []string{fmt.Sprint(token.Value)}
}

// boolMapper lets a flag stand without a value.
type boolMapper struct{ withValue kong.MapperFunc }

func (boolMapper) IsBool() bool { return true }

func (m boolMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	return m.withValue(ctx, target)
}

// listMapper takes a flag that may be repeated, or all remaining arguments.
type listMapper struct{ s *settings }

func (m listMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Value.Flag == nil {
		for _, token := range ctx.Scan.PopWhile(kong.Token.IsValue) {
			target.Set(reflect.Append(target, reflect.ValueOf(token.String())))
		}
		return nil
	}
	token, err := popValue(ctx)
	if err != nil {
		return err
	}
	for _, text := range textsOf(token) {
		if ctx.Value.Tag.Has("secret") { // the end of a line is refused, as in other secrets
			text = strings.Trim(text, " ")
		} else {
			text = strings.TrimSpace(text)
		}
		if text == "" {
			m.s.refuse(ctx.Value.Name, "has an empty entry")
			continue
		}
		target.Set(reflect.Append(target, reflect.ValueOf(text)))
	}
	return nil
}

// checkID reports an argument that is not a valid id.
func (s *settings) checkID(argument, id string) {
	var invalid *manager.InvalidError
	if errors.As(manager.CheckID(argument, id), &invalid) {
		s.note(invalid.Field + " " + invalid.Problem)
	}
}
