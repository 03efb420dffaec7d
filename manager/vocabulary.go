package manager

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ActionClass is the class of an application's own action.
type ActionClass struct {
	Class Class
	// KeyField is the member of the message, at the top level or in its "payload", whose string or number distinguishes
	// the states (or the tasks that terminals end) within one upload. A message without it is refused. "": the upload
	// is the key.
	KeyField string
}

// ParseActionClass parses the text form ACTION=state|event|terminal[:FIELD], for example
// build_progress=state:build_id. The error names the faulty part.
func ParseActionClass(text string) (action string, c ActionClass, err error) {
	action, class, found := strings.Cut(text, "=")
	if !found {
		return "", c, errors.New("must have the form ACTION=state|event|terminal[:FIELD]")
	}
	name, field, keyed := strings.Cut(class, ":")
	switch name {
	case "event":
		c.Class = ClassEvent
	case "state":
		c.Class = ClassState
	case "terminal":
		c.Class = ClassTerminal
	default:
		return "", c, fmt.Errorf("has the class %q, must be state, event or terminal", abbreviated(name))
	}
	if keyed && field == "" {
		return "", c, errors.New("has an empty field after the colon: " +
			"leave out the colon, or name the field that holds the key")
	}
	c.KeyField = field
	return action, c, c.check(action)
}

// String returns the text form without the action, such as state:build_id.
func (c ActionClass) String() string {
	names := [...]string{
		ClassEvent: "event", ClassState: "state", ClassTerminal: "terminal", ClassControl: "control",
	}
	name := "class " + strconv.Itoa(int(c.Class))
	if int(c.Class) < len(names) {
		name = names[c.Class]
	}
	if c.KeyField != "" {
		name += ":" + c.KeyField
	}
	return name
}

// maxKey bounds the key of a state, in bytes.
const maxKey = 255

func (c ActionClass) check(action string) error {
	switch {
	case action == "":
		return errors.New("has no action")
	case known(action):
		return fmt.Errorf("has the action %q, whose class cannot be changed", action)
	case reserved(action):
		return fmt.Errorf("has the action %q, which is reserved for the protocol", action)
	case len(action) > maxKey:
		return fmt.Errorf("has an action of %d bytes, at most %d are allowed", len(action), maxKey)
	case c.Class > ClassTerminal:
		return errors.New("has an unknown class, must be state, event or terminal")
	case c.Class == ClassEvent && c.KeyField != "":
		return errors.New("has a key, but an event has none: use state or terminal, or leave out the field")
	case len(c.KeyField) > maxKey:
		return fmt.Errorf("has a field of %d bytes, at most %d are allowed", len(c.KeyField), maxKey)
	case !utf8.ValidString(action) || !utf8.ValidString(c.KeyField):
		return errors.New("has an action or a field that is not valid UTF-8, as every name in a message is")
	case c.KeyField == "action" || c.KeyField == "payload" || c.KeyField == "offset" || c.KeyField == "skipped":
		return fmt.Errorf("has the field %q, which cannot hold a key", c.KeyField)
	}
	return nil
}

// vocabulary holds the words that an application has configured. The zero value allows any status and stage, and every
// own action is an event.
type vocabulary struct {
	classes          map[string]ActionClass
	statuses, stages words
	// shared: other nodes classify the messages too, by their payloads.
	shared bool
}

// checkVocabulary returns the problems of the configured words and classes.
func (o Options) checkVocabulary() (all []error) {
	for _, action := range slices.Sorted(maps.Keys(o.Classes)) {
		if err := o.Classes[action].check(action); err != nil {
			all = append(all, fmt.Errorf("manager: Options.Classes: %q %w", abbreviated(action), err))
		}
	}
	for name, list := range map[string][]string{"Statuses": o.Statuses, "Stages": o.Stages} {
		for _, word := range list {
			if err := CheckWord(word); err != nil {
				all = append(all, fmt.Errorf("manager: Options.%s has %q, which %w", name, abbreviated(word), err))
			}
		}
	}
	return all
}

// CheckWord returns an error that describes the valid form unless word is valid as a status or a stage.
func CheckWord(word string) error {
	if isSlug([]byte(word)) {
		return nil
	}
	return fmt.Errorf("must be 1 to %d characters of a-z 0-9 _ - .", maxSlug) //nolint:revive,staticcheck // no full stop
}

// words is a list of allowed words; nil allows every slug.
type words map[string]struct{}

func newVocabulary(o Options) vocabulary {
	list := func(allowed []string) words {
		if len(allowed) == 0 {
			return nil
		}
		set := make(words, len(allowed))
		for _, word := range allowed {
			set[word] = struct{}{}
		}
		return set
	}
	return vocabulary{maps.Clone(o.Classes), list(o.Statuses), list(o.Stages), o.Broker != nil}
}

// check returns an error for a word that is not allowed as the value of a field.
func (w words) check(field string, word []byte) error {
	if w == nil {
		if isSlug(word) {
			return nil
		}
		return &InvalidError{field, fmt.Sprintf("is %q, must be 1 to %d characters of a-z 0-9 _ - .",
			abbreviated(string(word)), maxSlug)}
	}
	if _, allowed := w[string(word)]; allowed {
		return nil
	}
	return &InvalidError{field, fmt.Sprintf("is %q, must be one of %s",
		abbreviated(string(word)), strings.Join(slices.Sorted(maps.Keys(w)), ", "))}
}

// maxSlug bounds a status or stage, in bytes.
const maxSlug = 64

func isSlug(text []byte) bool {
	for _, c := range text {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return len(text) > 0 && len(text) <= maxSlug
}

// fingerprint identifies a set of classes, "" if it is empty: nodes with different ones would treat a message
// differently.
func fingerprint(classes map[string]ActionClass) string {
	if len(classes) == 0 {
		return ""
	}
	hash := sha256.New()
	for _, action := range slices.Sorted(maps.Keys(classes)) {
		_, _ = fmt.Fprintf(hash, "%q=%q\n", action, classes[action].String())
	}
	return hex.EncodeToString(hash.Sum(nil)[:16])
}

// restricts reports whether the application has configured something about an action.
func (v *vocabulary) restricts(action string) bool {
	_, classified := v.classes[action]
	return classified || action == actionProgress && (v.statuses != nil || v.stages != nil)
}

// classify returns the class and state key of a message of an application's own action.
func (v *vocabulary) classify(action string, top, payload *object) (Class, string, error) {
	c := v.classes[action]
	if c.KeyField == "" {
		if c.Class != ClassState {
			return c.Class, "", nil
		}
		return c.Class, stateKey(action, nil), nil
	}
	value := top.value(c.KeyField)
	if value == nil {
		value = payload.value(c.KeyField)
	}
	if value == nil {
		return 0, "", &InvalidError{abbreviated(c.KeyField), fmt.Sprintf("is missing: it is the key of %s messages, "+
			"at the top level or in the payload", abbreviated(action))}
	}
	key, text := textOf(value)
	if !text {
		key = value
	}
	switch first := value[0]; {
	case !text && first != '-' && (first < '0' || first > '9'):
		return 0, "", &InvalidError{abbreviated(c.KeyField), "must be a string or a number, as the key of the message"}
	case len(key) > maxKey:
		return 0, "", &InvalidError{abbreviated(c.KeyField),
			fmt.Sprintf("has %d bytes, a key has at most %d", len(key), maxKey)}
	}
	return c.Class, stateKey(action, key), nil
}

// keySeparator ends the action in a state key. An action is valid UTF-8, so it does not contain this byte.
const keySeparator = "\xff"

// stateKey distinguishes the states of an upload by action and key. upload_progress has the empty one.
func stateKey(action string, key []byte) string { return action + keySeparator + string(key) }
