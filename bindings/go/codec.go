//go:build cgo

package turso

import (
	"encoding/binary"
	"math"
	"time"
)

// Values cross into the library and back as runs of bytes, the format of which is described in its header at
// PartialSyncBatch: a type's number, and what belongs to it.
const (
	typeInteger = 1
	typeReal    = 2
	typeText    = 3
	typeBlob    = 4
	typeNull    = 5
)

// encode appends a value that checkValue has let through.
func encode(to []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return append(to, typeNull), nil
	case int64:
		return binary.LittleEndian.AppendUint64(append(to, typeInteger), uint64(v)), nil
	case float64:
		return binary.LittleEndian.AppendUint64(append(to, typeReal), math.Float64bits(v)), nil
	case bool:
		number := uint64(0)
		if v {
			number = 1
		}
		return binary.LittleEndian.AppendUint64(append(to, typeInteger), number), nil
	case string:
		to, err := appendHead(to, typeText, len(v))
		return append(to, v...), err
	case []byte:
		if v == nil {
			return append(to, typeNull), nil
		}
		to, err := appendHead(to, typeBlob, len(v))
		return append(to, v...), err
	case time.Time:
		return encode(to, v.Format(time.RFC3339Nano))
	default:
		return to, misuse("a value of type %T cannot be bound", value)
	}
}

func appendHead(to []byte, kind byte, length int) ([]byte, error) {
	if length > math.MaxInt32 {
		return to, &Error{Code: 11, Message: "a text or blob of more than 2 GiB cannot be bound"}
	}
	return binary.LittleEndian.AppendUint32(append(to, kind), uint32(length)), nil
}

// decode takes the first value off b, which the library has written, and gives the rest. Texts and blobs are copies.
func decode(b []byte) (any, []byte) {
	kind, b := b[0], b[1:]
	switch kind {
	case typeInteger:
		return int64(binary.LittleEndian.Uint64(b)), b[8:]
	case typeReal:
		return math.Float64frombits(binary.LittleEndian.Uint64(b)), b[8:]
	case typeText:
		end := 4 + binary.LittleEndian.Uint32(b)
		return string(b[4:end]), b[end:]
	case typeBlob:
		end := 4 + binary.LittleEndian.Uint32(b)
		blob := make([]byte, end-4)
		copy(blob, b[4:end])
		return blob, b[end:]
	default:
		return nil, b
	}
}
