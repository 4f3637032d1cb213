module cycles

go 1.24

require turso v0.0.0

replace turso => ../../../bindings/go
