package turso

import (
	"errors"
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
		"RemoteAuthToken and AuthToken are two names of one option": {RemoteAuthToken: "a", AuthToken: "b"},
		"PartialSyncConfig.BoostrapStrategyPrefix and PartialSyncExperimental.BootstrapStrategyPrefix are two names": {
			PartialSyncConfig:       TursoPartialSyncConfig{BoostrapStrategyPrefix: 1},
			PartialSyncExperimental: TursoPartialSyncConfig{BootstrapStrategyPrefix: 2}},
		"PartialSyncConfig.BoostrapStrategyQuery and PartialSyncConfig.BootstrapStrategyQuery are two names": {
			PartialSyncConfig: TursoPartialSyncConfig{BoostrapStrategyQuery: "SELECT 1", BootstrapStrategyQuery: "SELECT 2"}},
		"PartialSyncConfig.SegmentSize and PartialSyncExperimental.SegmentSize are": {
			PartialSyncConfig: TursoPartialSyncConfig{SegmentSize: 4096}, PartialSyncExperimental: TursoPartialSyncConfig{SegmentSize: 8192}},
		"give one of them":                            {PartialSyncConfig: TursoPartialSyncConfig{BoostrapStrategyPrefix: 1, BoostrapStrategyQuery: "SELECT 1"}},
		"PartialSyncConfig.SegmentSize is -1":         {PartialSyncConfig: TursoPartialSyncConfig{SegmentSize: -1}},
		"PushOperationsThreshold is -5":               {PushOperationsThreshold: -5},
		"BusyTimeout is -2":                           {BusyTimeout: -2},
		`"_busy_timeout" is "soon"`:                   {Path: "a.db?_busy_timeout=soon"},
		`unknown option "_busytimout"; did you mean`:  {Path: "a.db?_busytimout=1"},
		`did you mean "_busy_timeout"?`:               {Path: "a.db?busy_timeout=1"},
		`did you mean "_foreign_keys"?`:               {Path: "a.db?_foreign_key=1"},
		`"_txlock" is given twice`:                    {Path: "a.db?_txlock=deferred&_txlock=immediate"},
		`"_txlock" is "later"`:                        {Path: "a.db?_txlock=later"},
		`has no path`:                                 {Path: "?_txlock=deferred"},
		`Namespace is "a b"`:                          {Namespace: "a b", RemoteUrl: "http://h"},
		`Namespace is "a", and RemoteUrl has no host`: {Namespace: "a"},
	} {
		if config.Path == "" {
			config.Path = "app.db"
		}
		if _, _, err := config.check(); !errors.Is(err, ErrTursoMisuse) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %s", err, says)
		}
	}
	if _, err := parseSource("a.db?vfs=unix"); !errors.Is(err, ErrTursoUnsupported) {
		t.Error(err)
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

func TestWhatIsLeftBehindAStatement(t *testing.T) {
	for sql, want := range map[string]string{
		"":                                   "",
		" \n;; ":                             "",
		"-- a comment":                       "",
		"-- a comment\n /* ; */ SELECT 1":    "SELECT 1",
		"/* not ended SELECT 1":              "",
		"; ; SELECT ';' -- not looked into ": "SELECT ';' -- not looked into ",
	} {
		if got := rest(sql); got != want {
			t.Errorf("%q: %q", sql, got)
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
		c.release(sql, s)
		if len(c.idle.kept) != len(c.idle.texts) || len(c.idle.kept) > idleMost {
			t.Fatalf("%d statements, %d texts", len(c.idle.kept), len(c.idle.texts))
		}
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
