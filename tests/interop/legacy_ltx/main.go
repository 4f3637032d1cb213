// Writes the LTX file of a database as the first programs of version 3 of the format did: each page an LZ4 frame, without its
// size. legacy DATABASE FILE [BEFORE]: a snapshot; with BEFORE, what changed since that database, as transaction 2. Both databases
// have the same page size.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/superfly/ltx"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: legacy DATABASE FILE [BEFORE]"))
	}
	db, err := os.ReadFile(os.Args[1])
	fail(err)
	size := uint32(binary.BigEndian.Uint16(db[16:]))
	if size == 1 {
		size = 65536
	}
	header := ltx.Header{Version: ltx.Version, PageSize: size, Commit: uint32(len(db)) / size, MinTXID: 1, MaxTXID: 1, Timestamp: 1}
	var before []byte
	if len(os.Args) > 3 {
		before, err = os.ReadFile(os.Args[3])
		fail(err)
		header.MinTXID, header.MaxTXID, header.PreApplyChecksum = 2, 2, checksum(before, size)
	}
	var file bytes.Buffer
	encoder, err := ltx.NewEncoder(&file)
	fail(err)
	fail(encoder.EncodeHeader(header))
	for page := uint32(1); page <= header.Commit; page++ {
		from, to := int(page-1)*int(size), int(page)*int(size)
		if to <= len(before) && bytes.Equal(db[from:to], before[from:to]) {
			continue
		}
		fail(encoder.EncodePage(ltx.PageHeader{Pgno: page}, db[from:to]))
	}
	encoder.SetPostApplyChecksum(checksum(db, size))
	fail(encoder.Close())
	fail(os.WriteFile(os.Args[2], file.Bytes(), 0o644))
}

func checksum(db []byte, size uint32) ltx.Checksum {
	sum, err := ltx.ChecksumReader(bytes.NewReader(db), int(size))
	fail(err)
	return sum
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
