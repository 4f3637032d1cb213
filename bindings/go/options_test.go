package turso

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestBothSpellingsMeanTheSame(t *testing.T) {
	for name, config := range map[string]TursoSyncDbConfig{
		"documented": {PartialSyncConfig: TursoPartialSyncConfig{BoostrapStrategyPrefix: 5, SegmentSize: 6, Prefetch: true}, RemoteAuthToken: "t"},
		"published":  {PartialSyncExperimental: TursoPartialSyncConfig{BootstrapStrategyPrefix: 5, SegmentSize: 6, Prefetch: true}, AuthToken: "t"},
		"mixed":      {PartialSyncConfig: TursoPartialSyncConfig{BootstrapStrategyPrefix: 5, Prefetch: true}, PartialSyncExperimental: TursoPartialSyncConfig{SegmentSize: 6}, AuthToken: "t"},
		"both": {PartialSyncConfig: TursoPartialSyncConfig{BootstrapStrategyPrefix: 5, BoostrapStrategyPrefix: 5, SegmentSize: 6, Prefetch: true},
			RemoteAuthToken: "t", AuthToken: "t"},
	} {
		config.Path = "app.db"
		o, _, err := config.check()
		if err != nil || o.bootstrapPrefix != 5 || o.segmentSize != 6 || o.prefetch != 1 || o.token != "t" || o.clientName != "turso-sync-go" {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
}

func TestWhatCannotBeIsRefusedByName(t *testing.T) {
	for says, config := range map[string]TursoSyncDbConfig{
		`"RemoteAuthToken" and "AuthToken" are two names of one option`: {RemoteAuthToken: "a", AuthToken: "b"},
		`"PartialSyncConfig.BoostrapStrategyPrefix" and "PartialSyncExperimental.BootstrapStrategyPrefix" are two names`: {
			PartialSyncConfig:       TursoPartialSyncConfig{BoostrapStrategyPrefix: 1},
			PartialSyncExperimental: TursoPartialSyncConfig{BootstrapStrategyPrefix: 2}},
		`"PartialSyncConfig.BoostrapStrategyQuery" and "PartialSyncConfig.BootstrapStrategyQuery" are two names`: {
			PartialSyncConfig: TursoPartialSyncConfig{BoostrapStrategyQuery: "SELECT 1", BootstrapStrategyQuery: "SELECT 2"}},
		`"PartialSyncConfig.SegmentSize" and "PartialSyncExperimental.SegmentSize" are`: {
			PartialSyncConfig: TursoPartialSyncConfig{SegmentSize: 4096}, PartialSyncExperimental: TursoPartialSyncConfig{SegmentSize: 8192}},
		"give one of them": {PartialSyncConfig: TursoPartialSyncConfig{BoostrapStrategyPrefix: 1, BoostrapStrategyQuery: "SELECT 1"}},
		`"PartialSyncConfig.SegmentSize" is -1; it must be a whole number of bytes, 1 to 67108864`: {PartialSyncConfig: TursoPartialSyncConfig{SegmentSize: -1}},
		`"PushOperationsThreshold" is -5; it must be a whole number of changes, 1 or more`:         {PushOperationsThreshold: -5},
		`"BusyTimeout" is -2; it must be a whole number of milliseconds, 0 to 2147483647`:          {BusyTimeout: -2},
		`"_busy_timeout" is "soon"`:                                            {Path: "a.db?_busy_timeout=soon"},
		`unknown option "_busytimout"; did you mean`:                           {Path: "a.db?_busytimout=1"},
		`did you mean "_busy_timeout"?`:                                        {Path: "a.db?busy_timeout=1"},
		`did you mean "_foreign_keys"?`:                                        {Path: "a.db?_foreign_key=1"},
		`"_txlock" is given twice`:                                             {Path: "a.db?_txlock=deferred&_txlock=immediate"},
		`"_txlock" is "later"`:                                                 {Path: "a.db?_txlock=later"},
		`"RemoteEncryptionCipher" is "rot13"; it must be one of 'aes256gcm', `: {RemoteEncryptionCipher: "rot13"},
		`RemoteEncryptionCipher needs RemoteEncryptionKey`:                     {RemoteEncryptionCipher: "aes256gcm"},
		`has no path`:        {Path: "?_txlock=deferred"},
		`Namespace is "a b"`: {Namespace: "a b", RemoteUrl: "http://h"},
		`Namespace is "a", and RemoteUrl has no host`: {Namespace: "a"},
		`RemoteUrl is "http://h", and RemoteUrlFunction is given too: give one of them`: {
			RemoteUrl: "http://h", RemoteUrlFunction: func() (string, error) { return "", nil }},
		`RemoteAuthToken and RemoteAuthTokenFunction are both given: give one of them`: {
			AuthToken: "t", RemoteAuthTokenFunction: func() (string, error) { return "", nil }},
	} {
		if config.Path == "" {
			config.Path = "app.db"
		}
		if _, _, err := config.check(); !errors.Is(err, ErrTursoMisuse) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %s", err, says)
		}
	}
	for _, config := range []TursoSyncDbConfig{{Path: "a.db?vfs=unix"}, {Path: "a.db", LogicalMvccPull: true}} {
		if _, _, err := config.check(); !errors.Is(err, ErrTursoUnsupported) {
			t.Error(err)
		}
	}
}

// documented is a row of docs/options.md.
type documented struct{ allowed, preset, name string }

func optionsOfTheDocumentation(t *testing.T) []documented {
	text, err := os.ReadFile("../../docs/options.md")
	if err != nil {
		t.Fatal(err)
	}
	about := map[string][]string{}
	var rows []documented
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(line, "|")
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "`", ""))
		}
		if len(cells) == 6 {
			about[cells[1]] = cells
			continue
		}
		for _, name := range strings.Split(cells[4], ", ") {
			if name != "" {
				rows = append(rows, documented{about[cells[1]][3], about[cells[1]][4], name})
			}
		}
	}
	return rows
}

// field finds the field of a config that an option's name means.
func field(config *TursoSyncDbConfig, name string) reflect.Value {
	value := reflect.ValueOf(config).Elem()
	for _, part := range strings.Split(name, ".") {
		value = value.FieldByName(part)
	}
	return value
}

func TestTheOptionsInTheDocumentationAreThoseOfTheCode(t *testing.T) {
	left := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[TursoSyncDbConfig]()) {
		left[f.Name] = true
		if f.Type == reflect.TypeFor[TursoPartialSyncConfig]() {
			for _, part := range reflect.VisibleFields(f.Type) {
				left[f.Name+"."+part.Name] = true
			}
		}
	}
	for _, option := range optionsOfTheDocumentation(t) {
		if name, isSource := strings.CutPrefix(option.name, "?"); isSource {
			// One that is known is checked, another one is not known.
			if err := checkText(option.name, "x"); err != nil && strings.Contains(err.Error(), "unknown") {
				t.Error(name, err)
			}
			continue
		}
		if !left[option.name] {
			t.Error(option.name, "is documented and not there")
		}
		delete(left, option.name)
	}
	if len(left) > 0 {
		t.Error("not documented:", left)
	}
}

func TestEveryOptionIsTakenUnderEachOfItsNamesAndHeldToItsRange(t *testing.T) {
	whole := regexp.MustCompile(`^a whole number of \w+, `)
	for _, option := range optionsOfTheDocumentation(t) {
		if strings.HasPrefix(option.name, "?") {
			continue
		}
		check := func(set func(reflect.Value)) error {
			config := TursoSyncDbConfig{Path: "app.db", RemoteEncryptionKey: "k", RemoteUrl: "http://h"}
			if option.name == "RemoteUrlFunction" {
				config.RemoteUrl = ""
			}
			set(field(&config, option.name))
			_, _, err := config.check()
			return err
		}
		says := func(bad string, err error) {
			want := "option \"" + option.name + "\" is " + bad + "; it must be " + option.allowed
			if err == nil || !errors.Is(err, ErrTursoMisuse) || err.Error() != want {
				t.Errorf("%v is not: %s", err, want)
			}
		}
		good := func(err error) {
			if err != nil {
				t.Error(option.name, err)
			}
		}
		switch kind := field(&TursoSyncDbConfig{}, option.name).Kind(); {
		case kind == reflect.Int:
			if !whole.MatchString(option.allowed) {
				t.Error(option.name, "is a number, documented as", option.allowed)
			}
			good(check(func(v reflect.Value) { v.SetInt(1) }))
			says("-7", check(func(v reflect.Value) { v.SetInt(-7) }))
		case strings.HasPrefix(option.allowed, "one of '"):
			good(check(func(v reflect.Value) { v.SetString(strings.Split(option.allowed, "'")[1]) }))
			says(`"rot13"`, check(func(v reflect.Value) { v.SetString("rot13") }))
		case kind == reflect.Func:
			good(check(func(v reflect.Value) { v.Set(reflect.MakeFunc(v.Type(), nil)) }))
		case kind == reflect.String:
			good(check(func(v reflect.Value) { v.SetString("x") }))
		case kind == reflect.Bool && option.allowed != "false":
			good(check(func(v reflect.Value) { v.SetBool(true) }))
		}
	}
}

func TestEveryMisspelledNameGetsTheSameText(t *testing.T) {
	for _, option := range optionsOfTheDocumentation(t) {
		name, isSource := strings.CutPrefix(option.name, "?")
		if !isSource {
			continue
		}
		want := `unknown option "` + name + `q"; did you mean "` + name + `"?`
		if _, err := parseSource("a.db?" + name + "q=1"); err == nil || err.Error() != want {
			t.Errorf("%v is not: %s", err, want)
		}
	}
	for _, option := range optionsOfTheDocumentation(t) {
		if option.name == "BusyTimeout" && option.preset != strconv.Itoa(DefaultBusyTimeout) {
			t.Error("the busy timeout is documented as", option.preset)
		}
		config := TursoSyncDbConfig{Path: "app.db"}
		if o, _, err := config.check(); err != nil || option.name == "ClientName" && !strings.Contains(option.preset, o.clientName) {
			t.Error("the client's name is documented as", option.preset, err)
		}
	}
}

func TestTheNamespaceIsPartOfTheUrl(t *testing.T) {
	for remote, want := range map[string]string{
		"libsql://example.com":        "libsql://ns.example.com",
		"http://localhost:8080":       "http://ns.localhost:8080",
		"https://example.com:443/a":   "https://ns.example.com:443/a",
		"http://127.0.0.1:8080":       "http://127.0.0.1:8080/ns",
		"http://[::1]:8080/":          "http://[::1]:8080/ns",
		"libsql://1.2.3.4:8080?tls=0": "libsql://1.2.3.4:8080/ns?tls=0",
	} {
		if got, err := withNamespace(remote, "ns"); err != nil || got != want {
			t.Errorf("%s: %s, %v", remote, got, err)
		}
	}
}

func TestIdleStatementsAreFewAndTheOldestGoFirst(t *testing.T) {
	connector, err := NewConnector(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer connector.Close()
	c, err := connector.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 3 * idleMost {
		sql := "SELECT " + strings.Repeat("1", 1+i%18) + strings.Repeat(" ", i)
		s, _, err := c.acquire(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.run(0); err != nil {
			t.Fatal(err)
		}
		c.release(sql, s)
		if len(c.idle.kept) != len(c.idle.texts) || len(c.idle.kept) > idleMost {
			t.Fatalf("%d statements, %d texts", len(c.idle.kept), len(c.idle.texts))
		}
	}
	if s, _, err := c.acquire(t.Context(), "SELECT 'not run'"); err != nil {
		t.Fatal(err)
	} else if c.release("SELECT 'not run'", s); c.idle.take("SELECT 'not run'") != nil {
		t.Fatal("a statement is kept that was not run")
	}
	last := c.idle.texts[idleMost-1]
	if s := c.idle.take(last); s == nil || c.idle.take(last) != nil {
		t.Fatal("the last one is not there, or twice")
	} else {
		c.release(last, s)
	}
}

func TestABusyTimeoutOfTheConnectorGoesBeforeThatOfTheName(t *testing.T) {
	for ms, want := range map[int]int{0: -1, -1: 1000, 2000: 2000} {
		c, err := NewConnector("a.db?_busy_timeout=1000", WithBusyTimeout(ms))
		if err != nil || c.source.busyTimeout != want {
			t.Errorf("%d: %+v, %v", ms, c, err)
		}
	}
	if _, err := NewConnector("a.db", WithBusyTimeout(-2)); !errors.Is(err, ErrTursoMisuse) {
		t.Error(err)
	}
}
