// Package packaging holds the tests of what is handed out: the archives of a
// release, and the Debian package from its installation to its purging. It has
// no other code.
//
// They need Debian's tools, a cross compiler and root, and are skipped with the
// reason where one is missing, or fail when FREEAREA_REQUIRE_PACKAGES is 1.
package packaging

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"debug/pe"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/cmd/freearea/app"
)

const (
	requireVariable = "FREEAREA_REQUIRE_PACKAGES"
	sysrootLibs     = ".cache/sysroot-arm64/usr/lib/aarch64-linux-gnu"
	crossLibc       = "/usr/aarch64-linux-gnu" // of Debian's cross compiler
)

// root is the module's directory.
var root = func() string {
	dir, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// unavailable skips the test with the reason, or fails it where the machine
// is required to have everything.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv(requireVariable) == "1" {
		t.Fatalf(format+" (and "+requireVariable+" is 1)", args...)
	}
	t.Skipf(format, args...)
}

// need asks for programs.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			unavailable(t, `%v ("make setup" installs it)`, err)
		}
	}
}

// run returns what a command prints to standard output.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// dist makes a release of the sources in a directory.
func dist(sources, dir string, env ...string) error {
	cmd := exec.Command("make", "--silent", "dist", "DIST="+dir)
	cmd.Dir = sources
	cmd.Env = append(os.Environ(), append([]string{"MAKEFLAGS=", "SOURCE_DATE_EPOCH=1790000000"}, env...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make dist: %w\n%s", err, out)
	}
	return nil
}

// shared is the directory of the release that all tests look at.
var shared string

var makeRelease = sync.OnceValue(func() error { return dist(root, shared) })

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "freearea-release-")
	if err != nil {
		panic(err)
	}
	shared = dir
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// release returns the directory of a release of these sources.
func release(t *testing.T) string {
	t.Helper()
	need(t, "make", "git", "tar", "zip", "dpkg-deb", "aarch64-linux-gnu-gcc", "pkg-config")
	if _, err := os.Stat(filepath.Join(root, sysrootLibs)); err != nil {
		unavailable(t, `%v ("make setup" makes it)`, err)
	}
	if err := makeRelease(); err != nil {
		t.Fatal(err)
	}
	return shared
}

func deb(dir, version, arch string) string {
	return filepath.Join(dir, fmt.Sprintf("freearea_%s-1_%s.deb", version, arch))
}

// archive is the name of an archive, without what says how it is packed.
func archive(target string) string {
	return "freearea_" + app.Version + "_" + strings.ReplaceAll(target, "/", "_")
}

func TestRelease(t *testing.T) {
	release := release(t)

	t.Run("sums", func(t *testing.T) { checkSums(t, release) })
	unpacked := t.TempDir()
	for _, target := range []string{"linux/amd64", "linux/arm64"} {
		run(t, exec.Command("tar", "-C", unpacked, "-xzf", filepath.Join(release, archive(target)+".tar.gz")))
	}
	zipped, err := zip.OpenReader(filepath.Join(release, archive("windows/amd64")+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer zipped.Close()
	if err := os.CopyFS(unpacked, zipped); err != nil {
		t.Fatal(err)
	}
	program := func(target string) string { return filepath.Join(unpacked, archive(target), "freearea") }

	for target, machine := range map[string]elf.Machine{"linux/amd64": elf.EM_X86_64, "linux/arm64": elf.EM_AARCH64} {
		t.Run(target, func(t *testing.T) {
			checkELF(t, program(target), machine)
			checkPackage(t, deb(release, app.Version, filepath.Base(target)), filepath.Base(target))
		})
	}
	t.Run("windows/amd64", func(t *testing.T) { checkPE(t, program("windows/amd64")+".exe") })
	t.Run("small board", func(t *testing.T) { runForeign(t, program("linux/arm64")) })
	host := filepath.Dir(program("linux/" + runtime.GOARCH))
	t.Run("manual", func(t *testing.T) { checkManual(t, host) })
	t.Run("completion", func(t *testing.T) { checkCompletion(t, host) })
	t.Run("reproducible", func(t *testing.T) {
		again := t.TempDir()
		if err := dist(copySources(t), again, "TZ=Asia/Tokyo", "LC_ALL=C", "TMPDIR="+t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(read(t, release, "SHA256SUMS"), read(t, again, "SHA256SUMS")); diff != "" {
			t.Errorf("sums of two releases of the same sources (-here +in another place):\n%s", diff)
		}
	})
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// copySources puts the sources into another place, as they are now, without
// their history. What was fetched is the same.
func copySources(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$1"`, "sh", dir)
	cmd.Dir = root
	run(t, cmd)
	if err := os.Symlink(filepath.Join(root, ".cache"), filepath.Join(dir, ".cache")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkSums wants everything that is there, and nothing else, in the sums.
func checkSums(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var sums strings.Builder
	for _, e := range entries {
		if e.Name() == "SHA256SUMS" {
			continue
		}
		names = append(names, e.Name())
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256([]byte(read(t, dir, e.Name()))), e.Name())
	}
	want := []string{
		filepath.Base(deb("", app.Version, "amd64")), filepath.Base(deb("", app.Version, "arm64")),
		archive("linux/amd64") + ".tar.gz", archive("linux/arm64") + ".tar.gz", archive("windows/amd64") + ".zip",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	lines := strings.SplitAfter(read(t, dir, "SHA256SUMS"), "\n")
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[min(len(a), 66):], b[min(len(b), 66):]) })
	if diff := cmp.Diff(sums.String(), strings.Join(lines, "")); diff != "" {
		t.Errorf("SHA256SUMS (-want +got):\n%s", diff)
	}
}

// checkELF wants a program for the machine, with PC/SC, that needs no newer C
// library than its package says, and that does not show where it was built.
func checkELF(t *testing.T, path string, machine elf.Machine) {
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != machine || f.Class != elf.ELFCLASS64 {
		t.Errorf("%v, %v; want %v", f.Machine, f.Class, machine)
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(libraries)
	if diff := cmp.Diff([]string{"libc.so.6", "libpcsclite.so.1"}, libraries); diff != "" {
		t.Errorf("libraries (-want +got):\n%s", diff)
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`libc6 \(>= 2\.(\d+)\)`).FindStringSubmatch(read(t, "nfpm.yaml"))[1]
	for _, s := range symbols {
		var minor, limit int
		fmt.Sscan(declared, &limit)
		if n, _ := fmt.Sscanf(s.Version, "GLIBC_2.%d", &minor); n == 1 && minor > limit {
			t.Errorf("%s needs %s, and the package depends on libc6 2.%d", s.Name, s.Version, limit)
		}
	}
	checkNoPath(t, path)
}

func checkPE(t *testing.T, path string) {
	f, err := pe.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 {
		t.Errorf("machine %#x", f.Machine)
	}
	checkNoPath(t, path)
}

func checkNoPath(t *testing.T, path string) {
	if strings.Contains(read(t, path), root) {
		t.Errorf("%s holds %s, where it was built", filepath.Base(path), root)
	}
}

// runForeign makes a card and asks it, under an emulator of the processor: the
// cards' virtual machine, the stores and the C library's loader run.
func runForeign(t *testing.T, program string) {
	need(t, "qemu-aarch64-static")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "passphrase"), []byte("small board\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	freearea := func(args ...string) string {
		cmd := exec.Command("qemu-aarch64-static", append([]string{
			"-L", crossLibc, "-E", "LD_LIBRARY_PATH=" + filepath.Join(root, sysrootLibs),
			program, "--lang=en", "--passphrase-file=passphrase"}, args...)...)
		cmd.Dir = dir
		return run(t, cmd)
	}
	if got, want := freearea("--version"), "freearea version "+app.Version+"\n"; got != want {
		t.Errorf("version %q, want %q", got, want)
	}
	freearea("keys", "init")
	freearea("emulate", "new", "card.img")
	if got := freearea("card", "show", "--public", "--json", "--card=image:card.img"); !strings.Contains(got, `"type":"card"`) {
		t.Errorf("card show: %s", got)
	}
}

// checkPackage looks at a Debian package as a reviewer would.
func checkPackage(t *testing.T, path, arch string) {
	field := func(name string) string {
		return strings.TrimSpace(run(t, exec.Command("dpkg-deb", "--field", path, name)))
	}
	for name, want := range map[string]string{
		"Package": "freearea", "Version": app.Version + "-1", "Architecture": arch, "Section": "utils", "Priority": "optional",
		"Depends": "libc6 (>= 2.34), libpcsclite1 (>= 1.8), adduser", "Recommends": "pcscd",
	} {
		if got := field(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	synopsis, _, _ := strings.Cut(field("Description"), "\n")
	if len(synopsis) == 0 || len(synopsis) > 80 {
		t.Errorf("the description's first line has %d characters, 1 to 80 expected", len(synopsis))
	}

	dir := t.TempDir()
	run(t, exec.Command("dpkg-deb", "--control", path, dir))
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var control []string
	for _, e := range entries {
		control = append(control, e.Name())
	}
	if diff := cmp.Diff([]string{"conffiles", "control", "md5sums", "postinst", "postrm", "prerm"}, control); diff != "" {
		t.Errorf("control files (-want +got):\n%s", diff)
	}
	if got := read(t, dir, "conffiles"); got != "/etc/freearea/readerd.toml\n" {
		t.Errorf("conffiles: %q", got)
	}
	for _, script := range []string{"postinst", "postrm", "prerm"} {
		run(t, exec.Command("sh", "-n", filepath.Join(dir, script)))
	}

	var got []string
	for line := range strings.Lines(run(t, exec.Command("dpkg-deb", "--contents", path))) {
		f := strings.Fields(line)
		if name := f[5]; !strings.HasSuffix(name, "/") || strings.Contains(name, "freearea/") {
			// What the packager itself writes has an owner without a name.
			owner := strings.Replace(f[1], "0/0", "root/root", 1)
			got = append(got, strings.Join([]string{f[0], owner, name}, " "))
		}
	}
	slices.Sort(got)
	const file, executable = "-rw-r--r-- root/root ./", "-rwxr-xr-x root/root ./"
	want := []string{
		executable + "usr/bin/freearea",
		"drwx------ root/root ./var/lib/freearea/",
		"drwxr-xr-x root/root ./etc/freearea/",
		"drwxr-xr-x root/root ./usr/share/doc/freearea/",
		file + "etc/freearea/readerd.toml",
		file + "usr/lib/systemd/system/freearea-readerd.service",
		file + "usr/share/bash-completion/completions/freearea",
		file + "usr/share/doc/freearea/README.ja.md",
		file + "usr/share/doc/freearea/README.md",
		file + "usr/share/doc/freearea/changelog.Debian.gz",
		file + "usr/share/doc/freearea/changelog.gz",
		file + "usr/share/doc/freearea/copyright",
		file + "usr/share/doc/freearea/operations.md",
		file + "usr/share/man/ja/man1/freearea.1.gz",
		file + "usr/share/man/man1/freearea.1.gz",
		file + "usr/share/polkit-1/rules.d/50-freearea.rules",
		file + "usr/share/zsh/vendor-completions/_freearea",
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
}

// checkManual formats both manual pages.
func checkManual(t *testing.T, dir string) {
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("there is no man to format them")
	}
	for name, want := range map[string]string{"freearea.1.gz": "the service of a terminal", "freearea.ja.1.gz": "端末の常駐サービス"} {
		cmd := exec.Command("man", "--warnings", "--local-file", filepath.Join(dir, name))
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=200", "MAN_KEEP_STDERR=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v\n%s", name, err, &stderr)
		}
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s: no %q in it", name, want)
		}
	}
}

// checkCompletion asks bash, and zsh where it is, what may follow.
func checkCompletion(t *testing.T, dir string) {
	need(t, "bash")
	for line, want := range map[string]string{
		"freearea iss": "issue issue-batch", "freearea keys exp": "export export-terminal", "freearea readerd --con": "--config",
	} {
		const script = `. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _freearea; echo "${COMPREPLY[*]}"`
		cmd := exec.Command("bash", append([]string{"-c", script, filepath.Join(dir, "completion.bash")}, strings.Fields(line)...)...)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if got := strings.TrimSpace(run(t, cmd)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if zsh, err := exec.LookPath("zsh"); err == nil {
		run(t, exec.Command(zsh, "-n", filepath.Join(dir, "completion.zsh")))
	}
}

// isMissing reports whether there is nothing under a path.
func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
