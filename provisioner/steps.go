package provisioner

import (
	"context"
	"errors"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// load brings the load file to the card, with its hash: the card compares it
// with what it received.
func (p *Provisioner) load(file *capfile.File, plan *Plan) Step {
	hash := file.Hash()
	o := delegation.Operation{Kind: delegation.Load, LoadFile: file.Package.AID, SecurityDomain: plan.where.manager.AID}
	if p.CardProfile.LoadHash || plan.delegated {
		o.Hash = hash[:]
	}
	step := p.manage(StepLoad, plan, o, iso7816.AID{}, "INSTALL [for load]", "LOAD")
	step.build = func(_ context.Context, s *Session) ([]globalplatform.Commander, error) {
		loadFile, err := globalplatform.LoadFile(file.LoadFileDataBlock())
		if err != nil {
			return nil, err
		}
		blocks, err := globalplatform.LoadBlocks(loadFile, p.blockSize(s))
		return commanders(blocks), err
	}
	return step
}

// install is for an instance with the plan's diversification data.
func (p *Provisioner) install(d *Desired, plan *Plan) (Step, error) {
	spec := d.spec
	o := delegation.Operation{Kind: delegation.Install, LoadFile: d.Manifest.Application.Package,
		Module: d.Manifest.Application.Module, Instance: d.Manifest.Application.Instance}
	if d.Profile.Traits().MutualAuthentication {
		spec.DiversificationData = plan.data
		o.Data = plan.data[:]
	}
	var err error
	if o.Parameters, err = d.Profile.InstallParameters(spec); err != nil {
		return Step{}, err
	}
	return p.manage(StepInstall, plan, o, iso7816.AID{}, "INSTALL [for install and make selectable]"), nil
}

// extradite gives the instance to the service's Security Domain.
func (p *Provisioner) extradite(plan *Plan) Step {
	o := delegation.Operation{Kind: delegation.Extradite, Object: plan.Instance, SecurityDomain: plan.where.home.AID}
	return p.manage(StepExtradite, plan, o, plan.where.manager.AID, "INSTALL [for extradition]")
}

// through marks a step that goes through a Security Domain.
func through(d Domain, step Step) Step {
	step.Domain, step.Key, step.domain = d.AID, d.Key, d
	return step
}

// personalize writes the content. Where the ID was not known when the plan was
// made, the run has reserved one by now.
func (p *Provisioner) personalize(plan *Plan, setPIN bool) Step {
	d := plan.desired
	return through(plan.where.home, Step{
		Name: StepPersonalize, Commands: []string{"INSTALL [for personalization]", "STORE DATA"},
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
	})
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
		return through(plan.where.home, Step{
			Name: StepVerify, Commands: []string{"SELECT"},
			look: func(ctx context.Context, s *Session) error {
				return holds(p.observe(ctx, s, plan.where.home, d.Profile, plan.Instance))
			},
		})
	}
	return through(plan.where.home, Step{
		Name: StepVerify, Commands: []string{"INSTALL [for personalization]", "STORE DATA"},
		build: func(context.Context, *Session) ([]globalplatform.Commander, error) {
			return p.observation(d.Profile, plan.Instance)
		},
		check: func(answer []byte) error {
			return holds(d.Profile.ParseObservation(answer))
		},
	})
}

// wipe erases the content, through the Security Domain that the instance
// belongs to.
func (p *Provisioner) wipe(at Domain, profile applets.Profile, instance iso7816.AID) Step {
	return through(at, Step{
		Name: StepWipe, Commands: []string{"INSTALL [for personalization]", "STORE DATA"},
		build: func(context.Context, *Session) ([]globalplatform.Commander, error) {
			return p.storeData(profile, instance, profile.Wipe())
		},
	})
}

func (p *Provisioner) deleteObject(name StepName, plan *Plan, aid iso7816.AID) Step {
	return p.manage(name, plan, delegation.Operation{Kind: delegation.Delete, Object: aid}, iso7816.AID{}, "DELETE")
}

// deleteLoadFile deletes a load file that nothing is known to use. A card
// refuses that as long as an instance of it is there (GPCS 9.5.2), also one
// that this Security Domain doesn't see; the load file then stays.
func (p *Provisioner) deleteLoadFile(plan *Plan) Step {
	step := p.deleteObject(StepDeleteLoadFile, plan, plan.loadFile)
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
		if answer, err = globalplatform.Execute(ctx, s.channel, c); err != nil {
			return nil, err
		}
		sent(i + 1)
	}
	return answer, nil
}
