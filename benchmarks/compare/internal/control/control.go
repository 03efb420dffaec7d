// Package control is how the runner speaks with the processes that it starts: requests go to their standard
// input, answers come from their standard output, one JSON object a line, one answer to each request.
package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line: nothing that is said here comes near.
const maxLine = 1 << 20

// envelope is the wire form of an answer.
type envelope[A any] struct {
	Error  string `json:"error,omitempty"`
	Answer A      `json:"answer"`
}

// Serve answers requests from in on out until handle says that it was the last one, or in ends, which is
// when the runner has gone. An error of handle is the answer to that one request. Serve blocks until then.
func Serve[Q, A any](in io.Reader, out io.Writer, handle func(Q) (answer A, last bool, err error)) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		var q Q
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return fmt.Errorf("control: a request is not as expected: %w", err)
		}
		answer, last, err := handle(q)
		if err := Reply(out, answer, err); err != nil {
			return err
		}
		if last {
			return nil
		}
	}
	return lines.Err()
}

// Reply writes one answer, or an error in its place.
func Reply[A any](out io.Writer, answer A, err error) error {
	e := envelope[A]{Answer: answer}
	if err != nil {
		e.Error = err.Error()
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("control: the answer cannot be written: %w", err)
	}
	_, err = out.Write(append(line, '\n'))
	return err
}

// parse takes one answer apart.
func parse[A any](line []byte) (A, error) {
	var e envelope[A]
	if err := json.Unmarshal(line, &e); err != nil {
		return e.Answer, fmt.Errorf("control: an answer is not as expected: %w", err)
	}
	if e.Error != "" {
		return e.Answer, errors.New(e.Error)
	}
	return e.Answer, nil
}
