//go:build cgo

package turso

import (
	"database/sql/driver"
	"strings"
	"time"
)

// checkValue turns an argument into one of the types that encode knows.
func checkValue(v *driver.NamedValue) error {
	switch value := v.Value.(type) {
	case nil, int64, float64, bool, string, []byte, time.Time:
		return nil
	case int:
		v.Value = int64(value)
		return nil
	}
	value, err := driver.DefaultParameterConverter.ConvertValue(v.Value)
	if err != nil {
		return misuse("%v", err)
	}
	v.Value = value
	return nil
}

// arguments are the values for a text of one or several statements.
type arguments struct {
	all        []driver.NamedValue
	positional int    // the next one to look at
	used       []bool // which named ones a statement had
	hasNames   bool
}

func newArguments(all []driver.NamedValue) arguments {
	a := arguments{all: all}
	for i := range all {
		if all[i].Name != "" {
			a.hasNames = true
			a.used = make([]bool, len(all))
			break
		}
	}
	return a
}

// encodeAll encodes all arguments for one statement.
func encodeAll(s *statement, all []driver.NamedValue) ([]byte, error) {
	a := newArguments(all)
	encoded, err := a.encode(s)
	if err != nil {
		return encoded, err
	}
	return encoded, a.end()
}

// encode makes the bytes that bind the parameters of s: named arguments where there is their name, positional ones, in
// their order, for the others.
func (a *arguments) encode(s *statement) ([]byte, error) {
	encoded := s.encoded[:0]
	var err error
	for index, name := range s.parameters {
		at := -1
		if a.hasNames && name != "" {
			at = a.named(name)
		}
		if at < 0 {
			at = a.next()
		}
		if at < 0 {
			return encoded, a.missing(s, index)
		}
		if encoded, err = encode(encoded, a.all[at].Value); err != nil {
			return encoded, err
		}
	}
	return encoded, nil
}

// named is the argument for a parameter called name, with its prefix.
func (a *arguments) named(name string) int {
	for i := range a.all {
		if given := a.all[i].Name; given != "" && (given == name[1:] || given == name) {
			a.used[i] = true
			return i
		}
	}
	return -1
}

// next is the next positional argument.
func (a *arguments) next() int {
	for a.positional < len(a.all) {
		a.positional++
		if a.all[a.positional-1].Name == "" {
			return a.positional - 1
		}
	}
	return -1
}

func (a *arguments) missing(s *statement, index int) error {
	if name := s.parameters[index]; name != "" && a.hasNames {
		return misuse("the parameter %s has no value: give sql.Named(%q, ...)", name, name[1:])
	}
	return misuse("the statement has %d parameters, %d values were given", len(s.parameters), len(a.all))
}

// end tells of arguments that no statement took.
func (a *arguments) end() error {
	for i := range a.all {
		switch {
		case a.all[i].Name != "" && !a.used[i]:
			return misuse("there is no parameter called %q: it would be written :%s, @%[2]s or $%[2]s",
				a.all[i].Name, strings.TrimLeft(a.all[i].Name, ":@$"))
		case a.all[i].Name == "" && i >= a.positional:
			return misuse("%d values were given, and there are parameters for %d of them", len(a.all), i)
		}
	}
	return nil
}
