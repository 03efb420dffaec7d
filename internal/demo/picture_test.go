package demo

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// painted returns a picture, whose left half is of the colour.
func painted(width, height int, left color.Color) image.Image {
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			if x < width/2 {
				m.Set(x, y, left)
			} else {
				m.Set(x, y, color.White)
			}
		}
	}
	return m
}

func encoded(t *testing.T, encode func(io.Writer) error) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := encode(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func pngOf(t *testing.T, m image.Image) []byte {
	t.Helper()
	return encoded(t, func(w io.Writer) error { return png.Encode(w, m) })
}

// tinyWebP is one pixel.
const tinyWebP = "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAwA0JaQAA3AA/vuUAAA="

func TestPicture_DimensionsAndThumbnail(t *testing.T) {
	webp, err := base64.StdEncoding.DecodeString(tinyWebP)
	if err != nil {
		t.Fatal(err)
	}
	large := painted(640, 320, color.Black)
	for kind, c := range map[string]struct {
		file          []byte
		width, height int
		thumbnail     string
		small         image.Point
	}{
		"image/png":  {pngOf(t, painted(320, 640, color.Transparent)), 320, 640, "image/png", image.Pt(160, 320)},
		"image/jpeg": {encoded(t, func(w io.Writer) error { return jpeg.Encode(w, large, nil) }), 640, 320, "image/jpeg", image.Pt(320, 160)},
		"image/gif":  {encoded(t, func(w io.Writer) error { return gif.Encode(w, large, nil) }), 640, 320, "image/jpeg", image.Pt(320, 160)},
		"image/webp": {webp, 1, 1, "image/jpeg", image.Pt(1, 1)},
	} {
		t.Run(kind, func(t *testing.T) {
			f := newFixture(t, 0)
			if res := f.post("/demo/uploads/u?name=p", bytes.NewReader(c.file)); res.StatusCode != http.StatusOK {
				t.Fatalf("answered %d, want 200", res.StatusCode)
			}
			all := f.until("upload_completed")
			if end := all[len(all)-1]; !strings.HasPrefix(end.Description, fmt.Sprintf("%s, %d × %d pixels, ", kind, c.width, c.height)) {
				t.Errorf("described as %q", end.Description)
			}
			if !strings.Contains(fmt.Sprintf("%+v", all), "Stage:making-thumbnail") {
				t.Error("making the thumbnail was not reported")
			}
			if found := f.found("u"); found.Type != kind || found.Width != c.width || found.Height != c.height || !found.Thumbnail {
				t.Errorf("found %+v", found)
			}
			res := f.get("/demo/uploads/u/thumbnail")
			if got := res.Header.Get("Content-Type"); got != c.thumbnail {
				t.Errorf("the thumbnail is %q, want %q", got, c.thumbnail)
			}
			small, _, err := image.Decode(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if small.Bounds().Size() != c.small {
				t.Errorf("the thumbnail is %v, want %v", small.Bounds().Size(), c.small)
			}
		})
	}
}

// claiming returns the beginning of a PNG that says that it has the dimensions.
func claiming(width, height uint32) []byte {
	header := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	header = append(binary.BigEndian.AppendUint32(header, height), 8, 6, 0, 0, 0)
	file := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), header...)
	return binary.BigEndian.AppendUint32(file, crc32.ChecksumIEEE(header))
}

func TestPicture_UndecodableIsDescribed(t *testing.T) {
	whole := pngOf(t, painted(100, 100, color.Black))
	for remark, file := range map[string][]byte{
		"too large for a thumbnail":  claiming(10_000, 5_001),
		"the picture is damaged":     whole[:len(whole)/2],
		"the picture cannot be read": []byte("\x89PNG\r\n\x1a\nnot so"),
	} {
		t.Run(remark, func(t *testing.T) {
			f := newFixture(t, 0)
			if res := f.post("/demo/uploads/u", bytes.NewReader(file)); res.StatusCode != http.StatusOK {
				t.Fatalf("answered %d, want 200", res.StatusCode)
			}
			f.until("upload_completed")
			if found := f.found("u"); found.Remark != remark || found.Thumbnail {
				t.Errorf("found %+v, want the remark %q", found, remark)
			}
		})
	}
}

func TestPicture_DecodableBounds(t *testing.T) {
	for _, c := range []struct {
		width, height int
		size          int64
		want          bool
	}{
		{10_000, 5_000, 1, true}, {10_000, 5_001, 1, false}, {1 << 31, 1 << 31, 1, false}, {0, 5, 1, false},
		{1, 1, maxPictureBytes, true}, {1, 1, maxPictureBytes + 1, false},
	} {
		if got := decodable(c.width, c.height, c.size); got != c.want {
			t.Errorf("decodable(%d, %d, %d) is %v, want %v", c.width, c.height, c.size, got, c.want)
		}
	}
}

func TestPicture_DecoderPanicIsError(t *testing.T) {
	_, err := safely(func(io.Reader) (image.Image, error) { panic("index out of range") }, nil)
	if err == nil || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("returned %v, want the panic as an error", err)
	}
}

func TestPicture_DecodingEndsInTime(t *testing.T) {
	d := &Demo{}
	file := strings.NewReader("picture")
	over := &pictureSource{demo: d, file: file, until: time.Now().Add(-time.Second)}
	if _, err := over.Read(make([]byte, 1)); err == nil {
		t.Error("a picture is read when its time is over")
	}
	running := &pictureSource{demo: d, file: file, until: time.Now().Add(time.Hour)}
	if all, err := io.ReadAll(running); string(all) != "picture" || err != nil {
		t.Errorf("read %q, %v", all, err)
	}
	running.offset = 0
	d.closed.Store(true)
	if _, err := running.Read(make([]byte, 1)); err == nil {
		t.Error("a picture is read after Close")
	}
}

func TestPicture_ThumbnailSize(t *testing.T) {
	for in, want := range map[image.Point]image.Point{
		{320, 320}: {320, 320}, {321, 100}: {320, 99}, {10, 20}: {10, 20}, {50_000, 1}: {320, 1}, {1, 50_000}: {1, 320},
	} {
		if w, h := thumbnailSize(in.X, in.Y); image.Pt(w, h) != want {
			t.Errorf("the thumbnail of %v is %d × %d, want %v", in, w, h, want)
		}
	}
}

func TestResult_OnlyNewestAreKept(t *testing.T) {
	var s results
	for i := range maxResults {
		s.put(&result{UploadID: fmt.Sprint(i)})
	}
	s.put(&result{UploadID: "0", Name: "again"})
	if r := s.find("0"); r == nil || r.Name != "again" {
		t.Errorf("found %+v, want the newer result of the same upload", r)
	}
	s.put(&result{UploadID: "one more"})
	if s.find("0") != nil || s.find("1") == nil || s.find("one more") == nil || len(s.byID) != maxResults {
		t.Errorf("%d results are kept, want the newest %d", len(s.byID), maxResults)
	}
}
