package readerd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/reader/policy"
	"github.com/freearea/freearea/readerd"
)

func load(t *testing.T, text string) (readerd.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "readerd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readerd.LoadConfig(path)
	if err != nil && !strings.HasPrefix(err.Error(), path) {
		t.Errorf("%v does not begin with the file's name", err)
	}
	return c, err
}

func TestConfig(t *testing.T) {
	c, err := load(t, `
debounce = "2s"
keystore = "terminal.keys"
[[service]]
manifest = "library.toml"
deny = "/var/lib/freearea/library.list"
stale = "warn"
from = "2026-04-01"
hours = ["mon-fri 08:00-19:00", "sat,sun 10:00-17:30", "fri-mon 22:00-06:00", "00:00-24:00"]
[http]
listen = "127.0.0.1:8470"
origins = ["https://till.example", "http://localhost:8000"]
token_file = "till.token"
keep = "30s"
[[lines]]
path = "-"
[[door]]
line = "/dev/ttyUSB0"
format = "wiegand26"
facility = 18
key_file = "door.key"
install = true
`)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(c.Keystore) || !filepath.IsAbs(c.Services[0].Manifest) || c.Services[0].Deny != "/var/lib/freearea/library.list" || c.Lines[0].Path != "-" || !filepath.IsAbs(c.Doors[0].KeyFile) || !filepath.IsAbs(c.HTTP.TokenFile) {
		t.Errorf("files: %+v", c)
	}
	if c.Doors[0].Baud != 9600 || time.Duration(c.Debounce) != 2*time.Second || c.Services[0].From.Day() != 1 {
		t.Errorf("%+v", c)
	}
	h := func(from, to float64, days ...time.Weekday) readerd.Hours {
		return readerd.Hours{Days: days, From: time.Duration(from * float64(time.Hour)), To: time.Duration(to * float64(time.Hour))}
	}
	want := []readerd.Hours{
		h(8, 19, 1, 2, 3, 4, 5), h(10, 17.5, 6, 0), h(22, 6, 5, 6, 0, 1), h(0, 24),
	}
	if diff := cmp.Diff(want, c.Services[0].Hours); diff != "" {
		t.Error(diff)
	}
	if c.Services[0].Stale != policy.Warn {
		t.Error(c.Services[0].Stale)
	}
}

// TestConfigFaults: every fault is told at once, each with its key.
func TestConfigFaults(t *testing.T) {
	_, err := load(t, `
sloths = ["a"]
[log]
format = "xml"
[[service]]
stale = "ignore"
[[service]]
manifest = "a.toml"
from = "2026-04-02"
until = "2026-04-01"
[[service]]
manifest = "a.toml"
[http]
listen = "0.0.0.0:8470"
origins = ["https://till.example", "*"]
keep = "61m"
[[lines]]
[[door]]
address = 127
baud = 300
format = "number"
facility = 256
[[door]]
line = "/dev/ttyS0"
format = "braille"
clear = true
install = true
`)
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		`unknown key "sloths"`, `log.format: "xml"`, "service[0]: no manifest", `service[0].stale: "ignore"`,
		"service[1]: until 2026-04-01", "service[2]: manifest a.toml stands there twice", "lines[0]: no path",
		`http.listen: "0.0.0.0:8470"`, `http.origins[1]: "*"`, "http.keep: 1h1m0s",
		"door[0]: no line", "door[0].address: 127", "door[0].baud: 300", "door[0].bits: 0", "door[0].facility: 256", "door[0]: no key_file",
		`door[1].format: "braille"`, "door[1]: clear goes without",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 18 {
		t.Errorf("%d faults:\n%v", n, err)
	}
}

func TestConfigMalformed(t *testing.T) {
	for text, want := range map[string]string{
		"a = ":                                        ":1: ",
		"\ndebounce = \"x\"":                          `"x": a time`,
		"debounce = \"-1s\"":                          `"-1s": a time`,
		"[[service]]\nfrom = \"tomorrow\"":            `"tomorrow": a day`,
		"[[service]]\nhours = [\"8-19\"]":             `"8-19": hours`,
		"[[service]]\nhours = [\"08:00-24:30\"]":      `"08:00-24:30": hours`,
		"[[service]]\nhours = [\"moon 08:00-19:00\"]": `"moon 08:00-19:00": hours`,
		"[[service]]\nhours = [\"24:00-24:00\"]":      `"24:00-24:00": hours`,
		"[[service]]\nhours = [\"\"]":                 `"": hours`,
		"":                                            "no [[service]]",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestTokenFile: a token is taken whole, and a short one is none.
func TestTokenFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "till.token")
	c := readerd.HTTPConfig{Listen: "127.0.0.1:8470", TokenFile: file}
	if _, err := c.Open(readerd.HTTPOptions{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("no file: %v", err)
	}
	for text, good := range map[string]bool{
		"c2VjcmV0c2VjcmV0c2VjcmV0\n": true, "": false, "short\n": false,
		"c2VjcmV0c2VjcmV0\nc2VjcmV0\n": false, "秘密秘密秘密秘密秘密秘密": false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := c.Open(readerd.HTTPOptions{})
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v", text, err)
		}
		if good {
			for token, want := range map[string]int{"Bearer " + strings.TrimSpace(text): 204, "Bearer c2Vj": 401} {
				if r := get(h.Handler(), "/v1/events/last", "Authorization: "+token); r.StatusCode != want {
					t.Errorf("%s: %d", token, r.StatusCode)
				}
			}
		}
	}
}

// TestDoorKey: install mode makes the key's file; afterwards it is used.
func TestDoorKey(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "door.key")
	door := readerd.DoorConfig{Address: 1, Baud: 9600, KeyFile: key}
	if _, err := door.Open(); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("no key: %v", err)
	}
	door.Install = true
	if _, err := door.Open(); err != nil {
		t.Errorf("install mode: %v", err)
	}
	for text, want := range map[string]string{
		"00112233445566778899aabbccddeeff\n": "",
		"00112233":                           "32 hexadecimal digits",
		"303132333435363738393a3b3c3d3e3f":   "default key",
	} {
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := door.Open(); err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestOutputConfig(t *testing.T) {
	c, err := load(t, `
state = "state"
[[service]]
manifest = "library.toml"
[[mqtt]]
broker = "mqtts://broker.example"
client_id = "terminal-3"
ca = "ca.pem"
expiry = "24h"
[[mqtt]]
broker = "mqtt://[::1]"
client_id = "terminal-3.local"
topic = "a/{slot}"
user = "a"
password_file = "b"
[[mqtt]]
broker = "mqtt://broker.example:1884"
client_id = "3"
clear = true
queue = 1000000
[[keyboard]]
layout = "jp106"
[[keyboard]]
layout = "digits"
prefix = "tab"
suffix = "none"
delay = "1s"
device = "/dev/input/uinput"
`)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(c.State) || !filepath.IsAbs(c.MQTT[0].CA) || !filepath.IsAbs(c.MQTT[1].PasswordFile) || c.MQTT[0].Key != "" {
		t.Errorf("files: %+v", c)
	}
	if m := c.MQTT[0]; m.Topic != "freearea/{service}/{outcome}" || m.Queue != 10_000 || time.Duration(m.Expiry) != 24*time.Hour {
		t.Errorf("%+v", m)
	}
	want := []readerd.KeyboardConfig{
		{Layout: "jp106", Prefix: "none", Suffix: "enter", Delay: readerd.Duration(5 * time.Millisecond), Device: "/dev/uinput"},
		{Layout: "digits", Prefix: "tab", Suffix: "none", Delay: readerd.Duration(time.Second), Device: "/dev/input/uinput"},
	}
	if diff := cmp.Diff(want, c.Keyboards); diff != "" {
		t.Error(diff)
	}
	for i, name := range []string{"mqtt terminal-3@broker.example:8883", "mqtt terminal-3.local@[::1]:1883"} {
		m := c.MQTT[i]
		m.CA, m.PasswordFile = "", ""
		if out, err := m.Open(readerd.MQTTOptions{}); err != nil || out.Name() != name {
			t.Errorf("%v, %v, want %s", out.Name(), err, name)
		}
	}
	for _, name := range []string{"mqtt", "keyboard"} {
		if _, err := readerd.LoadConfig(filepath.Join("..", "examples", name, "readerd.toml")); err != nil {
			t.Errorf("example: %v", err)
		}
	}
}

func TestOutputConfigFaults(t *testing.T) {
	_, err := load(t, `
[[service]]
manifest = "library.toml"
[[mqtt]]
broker = "https://broker.example"
client_id = "../3"
topic = "freearea/#"
password_file = "b"
key = "c"
expiry = "1500ms"
queue = -1
[[mqtt]]
broker = "mqtt://broker.example"
client_id = "3"
topic = "freearea/{id}"
[[mqtt]]
broker = "mqtt://localhost"
client_id = "3"
ca = "ca.pem"
[[mqtt]]
broker = "mqtts://broker.example"
client_id = "4"
clear = true
[[keyboard]]
layout = "dvorak"
prefix = "escape"
suffix = "f1"
delay = "2s"
[[keyboard]]
layout = "us"
delay = "10us"
`)
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		"no state: ", `mqtt[0].broker: "https://broker.example"`, `mqtt[0].client_id: "../3"`, `mqtt[0].topic: "freearea/#"`,
		"mqtt[0]: certificate and key go together", "mqtt[0]: password_file goes with user", "mqtt[0].expiry: 1.5s", "mqtt[0].queue: -1",
		"mqtt[1].broker: mqtt is not encrypted", `mqtt[1].topic: "{id}"`, "mqtt[2]: ca, certificate and key go with mqtts",
		"mqtt[2]: client_id 3 stands there twice", "mqtt[3]: clear goes without mqtts",
		`keyboard[0].layout: "dvorak"`, `keyboard[0].prefix: "escape"`, `keyboard[0].suffix: "f1"`, "keyboard[0].delay: 2s", "keyboard[1].delay: 10µs",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 18 {
		t.Errorf("%d faults:\n%v", n, err)
	}
	for _, broker := range []string{"", "broker", "mqtts://", "mqtts://u:p@h", "mqtts://h/path", "mqtts://h?q", "mqtts://h#f", "ws://h", "mqtts://h:port"} {
		_, err := load(t, "state = \"s\"\n[[service]]\nmanifest = \"a\"\n[[mqtt]]\nclient_id = \"3\"\nbroker = \""+broker+"\"")
		if err == nil || !strings.Contains(err.Error(), "mqtt[0].broker: ") {
			t.Errorf("%q: %v", broker, err)
		}
	}
	for _, topic := range []string{"$SYS/x", "a+", "a{", "{}", "a/\\u0000", strings.Repeat("a", 1025)} {
		_, err := load(t, "state = \"s\"\n[[service]]\nmanifest = \"a\"\n[[mqtt]]\nclient_id = \"3\"\nbroker = \"mqtts://h\"\ntopic = \""+topic+"\"")
		if err == nil || !strings.Contains(err.Error(), "mqtt[0].topic: ") {
			t.Errorf("%q: %v", topic, err)
		}
	}
}

// TestExamples: what is there to be copied is taken as it stands.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "examples", "*", "readerd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	outputs := map[string]bool{}
	for _, path := range files {
		c, err := readerd.LoadConfig(path)
		if err != nil {
			t.Error(err)
			continue
		}
		for kind, there := range map[string]bool{
			"http": c.HTTP != nil, "lines": len(c.Lines) > 0, "door": len(c.Doors) > 0, "mqtt": len(c.MQTT) > 0, "keyboard": len(c.Keyboards) > 0,
		} {
			outputs[kind] = outputs[kind] || there
		}
		for _, s := range c.Services {
			if _, err := os.Stat(s.Manifest); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	for kind, there := range outputs {
		if !there {
			t.Errorf("no example has %s", kind)
		}
	}
	if len(files) == 0 {
		t.Error("no examples")
	}
}
