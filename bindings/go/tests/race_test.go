//go:build race

package tests

// The race detector's own memory grows with every goroutine.
const underRaceDetector = true
