//go:build unix

package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// shellBlocks returns the blocks of a page that are marked as sh.
func shellBlocks(page string) (blocks []string) {
	for _, part := range strings.Split(page, "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	return blocks
}

// The commands of docs/sse.md print the output that the page shows.
func TestDocs_SSE(t *testing.T) {
	page := read(t, "docs/sse.md")
	blocks := shellBlocks(page)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks, want 2", len(blocks))
	}
	s := serveDev(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := func(block string) *exec.Cmd {
		c := exec.CommandContext(ctx, "bash", "-c", strings.Replace(block, "\ncurl -sN", "\nexec curl -sN", 1))
		c.Env = append(os.Environ(), "SHOAL_URL="+s.url)
		c.Stderr = os.Stderr
		return c
	}
	follow := command(blocks[0])
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = follow.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		_ = follow.Wait()
	}()
	lines := bufio.NewScanner(out)
	until := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the output ended without %s: %v", text, lines.Err())
	}
	until(`data: {"action":"subscribed","upload_id":"film"`)
	if text, err := command(blocks[1]).Output(); err != nil || !strings.Contains(string(text), `"accepted":1`) {
		t.Fatalf("publishing: %v, %s", err, text)
	}
	const message = `data: {"action":"note","text":"hello","offset":1,"upload_id":"film"}`
	if !strings.Contains(page, message) {
		t.Errorf("the page does not show %s", message)
	}
	until(message)
}
