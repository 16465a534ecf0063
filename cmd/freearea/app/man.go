package app

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// manCommand prints the manual page, for those who make packages. It is made
// from the same definition as the help, in the language of the messages.
func (p *program) manCommand() *cli.Command {
	return &cli.Command{
		Name:   "man",
		Hidden: true,
		Action: func(c *cli.Context) error {
			page, err := c.App.ToManWithSection(1)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(p.Stdout, page)
			return err
		},
	}
}
