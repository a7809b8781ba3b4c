package catalog

import (
	"regexp"
	"sync"
)

// shapes are the token shapes of every provider that a snapshot uses, compiled once.
type shapes struct {
	once sync.Once
	of   map[*Provider][]*regexp.Regexp
}

func (s *Snapshot) compileShapes() map[*Provider][]*regexp.Regexp {
	s.shapes.once.Do(func() {
		s.shapes.of = map[*Provider][]*regexp.Regexp{}
		for _, ups := range s.Upstreams {
			for _, up := range ups {
				if s.shapes.of[up.Provider] != nil {
					continue
				}
				for _, text := range up.Provider.TokenShapes {
					if re, err := regexp.Compile(text); err == nil { // checked when the provider was read
						s.shapes.of[up.Provider] = append(s.shapes.of[up.Provider], re)
					}
				}
			}
		}
	})
	return s.shapes.of
}

// ShapedLike returns the provider whose credentials look like v, unless that is own; nil if there is none. With a nil own
// it says whether v is anybody's credential at all.
func (c *Catalog) ShapedLike(v string, own *Provider) *Provider {
	var other *Provider
	for p, res := range c.Snapshot().compileShapes() {
		for _, re := range res {
			if !re.MatchString(v) {
				continue
			}
			if p == own {
				return nil
			}
			other = p
		}
	}
	return other
}
