package shapes

import (
	"fmt"
)

// Limit is in pixels.
const Limit = 10

// Area adds up.
func Area(width, height int) (int, error) {
	return width * height, nil
}

// Shape is a shape.
type Shape struct {
	Name string
}

type Sized interface {
	Size() int
}
type (
	A int
	B string
)

func (s *Shape) Size() int { return 1 }
