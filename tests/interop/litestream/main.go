// Litestream without its clients of clouds, which take minutes to build: its own code replicates to a folder and restores from one,
// called as its program calls it. litestream replicate -once [-compact LEVEL] [-snapshot] DATABASE file://FOLDER, where what it does from time
// to time is done at once: compaction up to a level, which removes what is in it from level 0, and a snapshot;
// litestream restore -o DATABASE [-txid ID] file://FOLDER.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/benbjohnson/litestream"
	_ "github.com/benbjohnson/litestream/file"
	"github.com/superfly/ltx"
	_ "modernc.org/sqlite"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: litestream replicate|restore ...")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	_ = flags.Bool("once", false, "replicate once and exit, which is all that this program does")
	compact := flags.Int("compact", 0, "compact up to this level")
	snapshot := flags.Bool("snapshot", false, "write a snapshot")
	out := flags.String("o", "", "where to restore to")
	id := flags.String("txid", "", "transaction to restore to")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch {
	case args[0] == "replicate" && flags.NArg() == 2:
		return replicate(flags.Arg(0), flags.Arg(1), *compact, *snapshot)
	case args[0] == "restore" && flags.NArg() == 1:
		return restore(flags.Arg(0), *out, *id)
	}
	return fmt.Errorf("litestream %s: wrong arguments", args[0])
}

func replicate(path, url string, compact int, snapshot bool) error {
	ctx := context.Background()
	client, err := litestream.NewReplicaClientFromURL(url)
	if err != nil {
		return err
	}
	db := litestream.NewDB(path)
	db.MonitorInterval = 0
	db.L0Retention = time.Nanosecond
	db.Replica = litestream.NewReplicaWithClient(db, client)
	db.Replica.MonitorEnabled = false
	store := litestream.NewStore([]*litestream.DB{db}, litestream.DefaultCompactionLevels)
	store.CompactionMonitorEnabled = false
	store.L0RetentionCheckInterval = 0
	if err := store.Open(ctx); err != nil {
		return err
	}
	err = db.Sync(ctx)
	if err == nil {
		err = db.Replica.Sync(ctx)
	}
	for level := 1; err == nil && level <= compact; level++ {
		if _, err = db.Compact(ctx, level); errors.Is(err, litestream.ErrNoCompaction) {
			err = nil
		}
	}
	if err == nil && snapshot {
		_, err = db.Snapshot(ctx)
	}
	return errors.Join(err, store.Close(ctx))
}

func restore(url, out, id string) error {
	client, err := litestream.NewReplicaClientFromURL(url)
	if err != nil {
		return err
	}
	options := litestream.NewRestoreOptions()
	options.OutputPath = out
	if id != "" {
		if options.TXID, err = ltx.ParseTXID(id); err != nil {
			return err
		}
	}
	return litestream.NewReplicaWithClient(nil, client).Restore(context.Background(), options)
}
