package app

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/freearea/freearea/batch"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/provisioner"
)

// display shows how a batch goes: JSON Lines, or a line for each card, and on a
// terminal a bar for each slot and one for the whole.
type display struct {
	p     *program
	json  *json.Encoder // nil for people
	lines io.Writer     // for people
	bars  *mpb.Progress // nil without a terminal

	before map[batch.EventKind]*mpb.Bar // of what comes before the cards
	whole  *mpb.Bar
	slots  map[string]*slotBar
	mu     sync.Mutex // of what the bars read: totals, and the slots' texts
	totals batch.Totals
}

// slotBar is what a slot's bar shows.
type slotBar struct {
	bar  *mpb.Bar
	text string
}

func (p *program) batchDisplay(c *cli.Context) *display {
	d := &display{p: p, lines: p.Stdout, slots: map[string]*slotBar{}, before: map[batch.EventKind]*mpb.Bar{}}
	if c.Bool("json") {
		d.json = json.NewEncoder(p.Stdout)
	} else if f, ok := isTerminal(p.Stderr); ok {
		d.draw(f)
	}
	return d
}

// draw has bars drawn. Lines go above them where both are one terminal.
func (d *display) draw(w io.Writer) {
	d.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithAutoRefresh())
	if _, ok := isTerminal(d.lines); ok {
		d.lines = d.bars
	}
}

func (d *display) say(t msg.Text, args ...any) { fmt.Fprintln(d.lines, d.p.lang.T(t, args...)) }

// start says what there is to do.
func (d *display) start(list *batch.List, t batch.Totals) {
	d.totals = t
	if d.json != nil {
		return
	}
	d.say(msg.Of("%s (%s): %d rows, %d issued already, %d unfinished on their cards, %d to do",
		"%s(%s): %d 行、発行済み %d、カード上で未完了 %d、未発行 %d"), list.Name, list.Encoding, t.Rows, t.Before, t.Unfinished, t.Open)
	if d.bars != nil {
		d.whole = d.bars.AddBar(int64(t.Rows), mpb.BarPriority(1<<20), mpb.PrependDecorators(
			decor.Name(d.p.lang.T(msg.Of("all ", "全体 "))), decor.CountersNoUnit("%d/%d ")), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			d.mu.Lock()
			defer d.mu.Unlock()
			return " " + d.pace()
		})))
		d.whole.SetCurrent(issuedRows(t))
	}
}

func issuedRows(t batch.Totals) int64 { return int64(t.Before + t.Issued + t.Beside) }

// pace is cards per minute and the time left, "" before the first card.
func (d *display) pace() string {
	t := d.totals
	if t.PerMinute == 0 {
		return ""
	}
	return d.p.lang.T(msg.Of("%.1f cards a minute, %s left", "毎分 %.1f 枚、残り %s"), t.PerMinute, t.Left.Round(time.Second))
}

// event shows one event. Events come one at a time.
func (d *display) event(e batch.Event) {
	d.mu.Lock()
	d.totals = e.Totals
	d.mu.Unlock()
	if d.json != nil {
		// Of a step's commands the first and the last: a load has a hundred.
		if e.Kind != batch.Progress || e.Progress.Commands == 0 || e.Progress.Commands == e.Progress.Total {
			_ = d.json.Encode(e) // a reader that left does not stop the cards
		}
		return
	}
	if e.Kind == batch.Checking || e.Kind == batch.Recording {
		d.prepare(e)
		return
	}
	row := d.p.lang.T(msg.Of("line %d", "%d行目"), e.Line)
	if e.Reference != "" {
		row += " (" + e.Reference + ")"
	}
	if e.Line == 0 {
		row = d.p.lang.T(msg.Of("no row", "行なし"))
	}
	switch e.Kind {
	case batch.Done:
		d.say(msg.Of("%s: issued: %s, ID %s, issue number %d; take the card away", "%s: 発行完了: %s、ID %s、発行番号 %d。カードを取ってください"),
			e.Slot, row, e.Row.ID, e.Row.IssueNumber)
	case batch.Recognised:
		d.say(msg.Of("%s: issued already: %s; take the card away", "%s: 発行済みのカードです: %s。カードを取ってください"), e.Slot, row)
	case batch.Wiped:
		d.say(msg.Of("%s: erased: %s, which was revoked: %s; leave the card", "%s: 消去しました: 失効済みの %s: %s。カードはそのまま置いてください"), e.Slot, e.Service, row)
	case batch.NotWiped:
		d.say(msg.Of("%s: not erased: %s, which was revoked: %s: %s", "%s: 消去できません: 失効済みの %s: %s: %s"), e.Slot, e.Service, row, oneLine(d.p.explain(e.Err)))
	case batch.Refused:
		d.say(msg.Of("%s: not issued: %s: %s", "%s: 発行できません: %s: %s"), e.Slot, row, oneLine(d.p.explain(e.Err)))
	}
	d.show(e, row)
}

// prepare shows how far what comes before the cards is: of a long list it takes
// minutes.
func (d *display) prepare(e batch.Event) {
	if d.bars == nil {
		return
	}
	bar := d.before[e.Kind]
	if bar == nil {
		name := msg.Of("checking the list ", "リストを検査中 ")
		if e.Kind == batch.Recording {
			name = msg.Of("recording consents ", "同意を記録中 ")
		}
		bar = d.bars.AddBar(int64(e.Progress.Total), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(d.p.lang.T(name)), decor.CountersNoUnit("%d/%d ")))
		d.before[e.Kind] = bar
	}
	bar.SetCurrent(int64(e.Progress.Commands))
}

// show brings the bars up to date.
func (d *display) show(e batch.Event, row string) {
	if d.bars == nil {
		return
	}
	if d.whole != nil {
		d.whole.SetCurrent(issuedRows(e.Totals))
	}
	const step = 1000 // parts of a bar
	s := d.slots[e.Slot]
	if s == nil {
		s = &slotBar{}
		d.slots[e.Slot] = s
	}
	if s.bar == nil {
		s.bar = d.bars.AddBar(step, mpb.PrependDecorators(decor.Name(e.Slot+" ")), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			d.mu.Lock()
			defer d.mu.Unlock()
			return " " + s.text
		})))
	}
	text, done, of := "", int64(0), int64(step)
	switch n := e.Progress; e.Kind {
	case batch.SlotRemoved:
		s.bar.Abort(true)
		s.bar = nil
		return
	case batch.Presented:
		text = d.p.lang.T(msg.Of("card found", "カード確認中"))
	case batch.Matched, batch.Wiped, batch.NotWiped:
		text = row
	case batch.Progress:
		of = int64(n.Steps) * step
		done = int64(n.Step-1) * step
		if n.Total > 0 {
			done += int64(n.Commands * step / n.Total)
		}
		done = min(done, of-1) // a full bar can't be used again
		text = row
		if e.Service != "" {
			text = d.p.lang.T(msg.Of("erasing %s:", "%s を消去中:"), e.Service)
		}
		text += " " + d.p.lang.T(stepText(provisioner.StepName(n.Name)))
	case batch.Done, batch.Recognised, batch.Refused:
		text = d.p.lang.T(msg.Of("take the card away", "カードを取ってください"))
	default:
		text = d.p.lang.T(msg.Of("next card", "次のカードを置いてください"))
	}
	d.mu.Lock()
	s.text = text
	d.mu.Unlock()
	s.bar.SetTotal(of, false)
	s.bar.SetCurrent(done)
}

// stopping says what happens after an interrupt.
func (d *display) stopping() {
	w := d.p.Stderr
	if d.bars != nil {
		w = d.bars
	}
	fmt.Fprintln(w, d.p.lang.T(msg.Of("freearea: stopping: the cards under way are finished, leave them in their slots; interrupt again to end at once",
		"freearea: 停止します。処理中のカードが終わるまで、そのまま置いてください。もう一度中断するとすぐに終了します")))
}

// end takes the bars down.
func (d *display) end() {
	if d.bars == nil {
		return
	}
	for _, bar := range d.before {
		bar.Abort(true)
	}
	for _, s := range d.slots {
		if s.bar != nil {
			s.bar.Abort(true)
		}
	}
	if d.whole != nil && !d.whole.Completed() {
		d.whole.Abort(false)
	}
	d.bars.Wait()
	d.lines = d.p.Stdout
}
