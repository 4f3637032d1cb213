//go:build !cgo

package turso

// This driver links a C library. What follows does not compile, so that the compiler's message says what to do.
var _ = turso_needs_cgo_set_CGO_ENABLED_1_and_install_a_C_compiler
