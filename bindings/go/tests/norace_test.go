//go:build !race

package tests

const underRaceDetector = false
