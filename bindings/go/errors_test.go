//go:build cgo

package turso

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// variables are the sentinels by their names.
var variables = map[string]error{
	"ErrTursoGeneric": ErrTursoGeneric, "ErrTursoBusy": ErrTursoBusy, "ErrTursoConstraint": ErrTursoConstraint,
	"ErrTursoInterrupt": ErrTursoInterrupt, "ErrTursoTransactionLost": ErrTursoTransactionLost,
	"ErrTursoReadOnly": ErrTursoReadOnly, "ErrTursoCorrupt": ErrTursoCorrupt, "ErrTursoNotADb": ErrTursoNotADb,
	"ErrTursoFull": ErrTursoFull, "ErrTursoIo": ErrTursoIo, "ErrTursoCannotOpen": ErrTursoCannotOpen,
	"ErrTursoNoMemory": ErrTursoNoMemory, "ErrTursoTooBig": ErrTursoTooBig, "ErrTursoConversion": ErrTursoConversion,
	"ErrTursoMisuse": ErrTursoMisuse, "ErrTursoNetwork": ErrTursoNetwork, "ErrTursoTimeout": ErrTursoTimeout,
	"ErrTursoUnauthorized": ErrTursoUnauthorized, "ErrTursoNotFound": ErrTursoNotFound,
	"ErrTursoProtocol": ErrTursoProtocol, "ErrTursoRemoteRefused": ErrTursoRemoteRefused,
	"ErrTursoRevisionExpired": ErrTursoRevisionExpired, "ErrTursoPushConstraint": ErrTursoPushConstraint,
	"ErrTursoPushRefused": ErrTursoPushRefused, "ErrTursoPullConflict": ErrTursoPullConflict,
	"ErrTursoDiverged": ErrTursoDiverged, "ErrTursoNoRemote": ErrTursoNoRemote,
	"ErrTursoNotPulledYet": ErrTursoNotPulledYet, "ErrTursoOtherRemote": ErrTursoOtherRemote,
	"ErrTursoUnsupported": ErrTursoUnsupported, "ErrTursoInternal": ErrTursoInternal,
	"ErrTursoUnsendable": ErrTursoUnsendable, "ErrTursoCallback": ErrTursoCallback,
}

// The table in docs/errors.md, through the numbers of the C header, is the one of this package.
func TestTheTableOfErrorsInTheDocumentationIsTheOneOfTheCode(t *testing.T) {
	header, err := os.ReadFile("../../crates/ffi/include/partial_sync.h")
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]int{}
	for _, match := range regexp.MustCompile(`PARTIAL_SYNC_CODE_(\w+) = (\d+)`).FindAllStringSubmatch(string(header), -1) {
		numbers[match[1]], _ = strconv.Atoi(match[2])
	}
	text, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		rows++
		cells := strings.Split(line, "|")
		cell := func(n int) string { return strings.Trim(cells[n], " `") }
		number, known := numbers[cell(4)]
		if want := variables[cell(5)]; !known || want == nil || ErrorCode(number).kind() != want {
			t.Errorf("%s: code %d is %v, documented as %s", cell(1), number, ErrorCode(number).kind(), cell(5))
		}
	}
	if rows != len(kinds)-1 || rows != len(numbers)-1 {
		t.Errorf("%d rows for %d kinds and %d codes of the header", rows, len(kinds)-1, len(numbers)-1)
	}
}

func TestAnErrorIsAlsoOfTheWiderKind(t *testing.T) {
	for number, kind := range kinds {
		for _, wider := range also[kind] {
			if err := (&Error{Code: ErrorCode(number)}); !errors.Is(err, wider) || !errors.Is(err, kind) {
				t.Errorf("%v is not %v", kind, wider)
			}
		}
	}
}
