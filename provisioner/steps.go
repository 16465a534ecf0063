package provisioner

import (
	"context"
	"errors"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// load brings the load file to the card, with its hash: the card compares it
// with what it received.
func (p *Provisioner) load(file *capfile.File) Step {
	hash := file.Hash()
	return Step{
		Name: StepLoad, Key: p.SecurityDomainKey, Commands: []string{"INSTALL [for load]", "LOAD"},
		build: func(_ context.Context, s *Session) ([]globalplatform.Commander, error) {
			first := globalplatform.InstallForLoad{LoadFile: file.Package.AID, SecurityDomain: p.CardProfile.SecurityDomain}
			if p.CardProfile.LoadHash {
				first.Hash = hash[:]
			}
			loadFile, err := globalplatform.LoadFile(file.LoadFileDataBlock())
			if err != nil {
				return nil, err
			}
			blocks, err := globalplatform.LoadBlocks(loadFile, p.blockSize(s))
			return append([]globalplatform.Commander{first}, commanders(blocks)...), err
		},
	}
}

func (p *Provisioner) install(d *Desired, plan *Plan) Step {
	return Step{
		Name: StepInstall, Key: p.SecurityDomainKey, Commands: []string{"INSTALL [for install and make selectable]"},
		build: func(context.Context, *Session) ([]globalplatform.Commander, error) {
			spec := d.spec
			if d.Profile.Traits().MutualAuthentication {
				spec.DiversificationData = plan.data
			}
			parameters, err := d.Profile.InstallParameters(spec)
			if err != nil {
				return nil, err
			}
			app := d.Manifest.Application
			return []globalplatform.Commander{globalplatform.InstallForInstall{
				LoadFile: app.Package, Module: app.Module, Instance: app.Instance,
				Parameters: globalplatform.InstallParameters{Specific: parameters}, MakeSelectable: true,
			}}, nil
		},
	}
}

// personalize writes the content. Where the ID was not known when the plan was
// made, the run has reserved one by now.
func (p *Provisioner) personalize(plan *Plan, setPIN bool) Step {
	d := plan.desired
	return Step{
		Name: StepPersonalize, Key: p.SecurityDomainKey, Commands: []string{"INSTALL [for personalization]", "STORE DATA"},
		build: func(ctx context.Context, s *Session) ([]globalplatform.Commander, error) {
			c, err := p.content(ctx, d, plan.number, plan.data)
			defer erase(&c)
			if err != nil {
				return nil, err
			}
			plan.holds(c)
			if setPIN {
				if c.PIN, err = d.Manifest.PINSetting(d.subject); err != nil {
					return nil, err
				}
			}
			c.KeepPIN = d.spec.PIN && !setPIN
			blocks, err := d.Profile.Personalization(c, s.channel.EncryptSensitive)
			if err != nil {
				return nil, err
			}
			return p.storeData(d.Profile, plan.Instance, blocks)
		},
	}
}

// verify reads back what the card says that it holds.
func (p *Provisioner) verify(plan *Plan) Step {
	d := plan.desired
	holds := func(observed applets.Observation, err error) error {
		if err == nil && (!observed.Personalized() || observed.Tag != plan.tag) {
			err = ErrNotVerified
		}
		return err
	}
	if _, ok := d.Profile.(applets.Observer); ok {
		return Step{
			Name: StepVerify, Key: p.SecurityDomainKey, Commands: []string{"SELECT"},
			look: func(ctx context.Context, s *Session) error {
				return holds(p.observe(ctx, s, d.Profile, plan.Instance))
			},
		}
	}
	return Step{
		Name: StepVerify, Key: p.SecurityDomainKey, Commands: []string{"INSTALL [for personalization]", "STORE DATA"},
		build: func(context.Context, *Session) ([]globalplatform.Commander, error) {
			return p.observation(d.Profile, plan.Instance)
		},
		check: func(answer []byte) error {
			return holds(d.Profile.ParseObservation(answer))
		},
	}
}

func (p *Provisioner) wipe(profile applets.Profile, instance iso7816.AID) Step {
	return Step{
		Name: StepWipe, Key: p.SecurityDomainKey, Commands: []string{"INSTALL [for personalization]", "STORE DATA"},
		build: func(context.Context, *Session) ([]globalplatform.Commander, error) {
			return p.storeData(profile, instance, profile.Wipe())
		},
	}
}

func (p *Provisioner) deleteObject(name StepName, aid iso7816.AID) Step {
	return Step{
		Name: name, Key: p.SecurityDomainKey, Commands: []string{"DELETE"},
		build: func(context.Context, *Session) ([]globalplatform.Commander, error) {
			return []globalplatform.Commander{globalplatform.Delete{AID: aid}}, nil
		},
	}
}

// deleteLoadFile deletes a load file that nothing is known to use. A card
// refuses that as long as an instance of it is there (GPCS 9.5.2), also one
// that this Security Domain doesn't see; the load file then stays.
func (p *Provisioner) deleteLoadFile(aid iso7816.AID) Step {
	step := p.deleteObject(StepDeleteLoadFile, aid)
	step.spared = func(err error) bool { return errors.Is(err, iso7816.ErrConditions) }
	return step
}

// storeOptions says how STORE DATA is marked: as is usual on the card, unless
// the profile knows better.
func (p *Provisioner) storeOptions(profile applets.Profile) globalplatform.StoreOptions {
	o := p.CardProfile.StoreData
	if x, ok := profile.(applets.StoreFormatter); ok {
		o.Format, o.Encryption = x.StoreFormat()
	}
	return o
}

// storeData is INSTALL [for personalization] and the blocks.
func (p *Provisioner) storeData(profile applets.Profile, instance iso7816.AID, blocks [][]byte) ([]globalplatform.Commander, error) {
	return p.personalization(instance, blocks, p.storeOptions(profile))
}

// observation asks an instance what it holds, by STORE DATA of case 4 (GPCS
// 11.11, P1 b1 = 1).
func (p *Provisioner) observation(profile applets.Profile, instance iso7816.AID) ([]globalplatform.Commander, error) {
	o := p.storeOptions(profile)
	o.Answer = true
	return p.personalization(instance, [][]byte{profile.ObservationRequest()}, o)
}

func (p *Provisioner) personalization(instance iso7816.AID, blocks [][]byte, o globalplatform.StoreOptions) ([]globalplatform.Commander, error) {
	store, err := globalplatform.StoreBlocks(blocks, o)
	return append([]globalplatform.Commander{globalplatform.InstallForPersonalization{Instance: instance}}, commanders(store)...), err
}

// blockSize is how many bytes of data one command carries on this card.
func (p *Provisioner) blockSize(s *Session) int {
	size := globalplatform.MaxData(s.channel)
	if p.CardProfile.BlockSize > 0 {
		size = min(size, p.CardProfile.BlockSize)
	}
	return size
}

func commanders[C globalplatform.Commander](list []C) []globalplatform.Commander {
	out := make([]globalplatform.Commander, len(list))
	for i, c := range list {
		out[i] = c
	}
	return out
}

// execute sends commands in order and returns the answer to the last.
func (s *Session) execute(ctx context.Context, commands []globalplatform.Commander, sent func(n int)) (answer []byte, err error) {
	for i, c := range commands {
		cmd, err := c.Command()
		if err != nil {
			return nil, err
		}
		if answer, err = iso7816.Do(ctx, s.channel, cmd); err != nil {
			return nil, err
		}
		sent(i + 1)
	}
	return answer, nil
}
