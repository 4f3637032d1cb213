# Short names for the scripts: `just` lists them. `cargo install just` or your package manager has it; nothing needs it.

# what there is
default:
    @just --list --unsorted

# formatting, lints, unit tests and documents: the inner loop
quick:
    scripts/quick

# every test, as continuous integration runs them
test:
    scripts/test

# the tests of one crate, by the name of its folder: `just crate vfs`, `just crate engine a_part_of_a_name`
crate name *filter:
    cargo test --locked --manifest-path crates/{{name}}/Cargo.toml {{filter}}

# one language's package: `just binding node`
binding language *arguments:
    scripts/test-{{language}} {{arguments}}

# the main job on real data
demo:
    scripts/demo

# simulated histories for so many minutes
torture minutes="5":
    scripts/torture --minutes {{minutes}}

# abuse of a server, beside an honest client, for so many minutes
siege minutes="6":
    scripts/torture server --minutes {{minutes}}

# coverage-guided fuzzing, so many minutes for each target
fuzz minutes="1":
    scripts/fuzz --minutes {{minutes}}

# benchmarks: `just bench local`, `just bench --help`
bench *arguments:
    scripts/bench {{arguments}}

# the API's documentation, in the browser
docs:
    cargo doc --locked --no-deps -p partial-sync --open

# packages for this platform, each tried in an empty project
package:
    scripts/package
