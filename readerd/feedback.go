package readerd

import (
	"github.com/freearea/freearea/reader/policy"
)

// Sign is what a light, a beeper or a picture tells the person.
type Sign string

// Signs.
const (
	SignAccepted  Sign = "accepted"
	SignRefused   Sign = "refused"
	SignHoldStill Sign = "hold-still" // the card left before it was read: present it again, and hold it
	SignTakeAway  Sign = "take-away"  // the card was disturbed: take it away and present it again
)

// Feedback is what to tell the person in front of the reader.
type Feedback struct {
	Sign Sign   `json:"sign"`
	JA   string `json:"ja"`
	EN   string `json:"en"`
}

// refusals are what is said of a reason, of a policy's or a reader's.
var refusals = map[string]Feedback{
	string(policy.Denied):       {SignRefused, "このカードは利用停止中です。窓口にお申し出ください。", "This card has been stopped. Please ask at the counter."},
	string(policy.NotAllowed):   {SignRefused, "このカードは登録されていません。", "This card is not registered here."},
	string(policy.StaleList):    {SignRefused, "ただいま確認できません。係員をお呼びください。", "Cards can't be checked at present. Please call the staff."},
	string(policy.UnsignedList): {SignRefused, "ただいま確認できません。係員をお呼びください。", "Cards can't be checked at present. Please call the staff."},
	string(policy.NotYet):       {SignRefused, "利用期間の前です。", "The service has not begun yet."},
	string(policy.Over):         {SignRefused, "利用期間が終了しました。", "The service has ended."},
	string(policy.OutsideHours): {SignRefused, "利用時間外です。", "Outside of the hours of use."},
	string(policy.OtherService): {SignRefused, "このカードはここでは使えません。", "This card can't be used here."},

	"card-removed":     {SignHoldStill, "カードを離さず、もう一度かざしてください。", "Please present the card again, and hold it still."},
	"protocol":         {SignTakeAway, "一度カードを離して、もう一度かざしてください。", "Please take the card away, and present it again."},
	"no-service":       {SignRefused, "このカードはここでは使えません。", "This card can't be used here."},
	"not-personalized": {SignRefused, "このカードはここでは使えません。", "This card can't be used here."},
	"expired":          {SignRefused, "有効期限が切れています。", "The card's service has expired."},
	"suspended":        {SignRefused, "このカードは利用停止中です。窓口にお申し出ください。", "This card has been suspended. Please ask at the counter."},
	"pin-needed":       {SignRefused, "暗証番号が必要です。", "A PIN is needed."},
	"wrong-pin":        {SignRefused, "暗証番号が違います。", "The PIN is wrong."},
	"pin-blocked":      {SignRefused, "暗証番号がロックされています。窓口にお申し出ください。", "The PIN is blocked. Please ask at the counter."},
	"pin-change":       {SignRefused, "暗証番号を変更してからご利用ください。", "Please change the PIN first."},
}

// feedback finds what to say. A reason that has no text of its own is the
// terminal's affair and not the person's.
func feedback(o Outcome, reason string) Feedback {
	if o == Accepted {
		return Feedback{SignAccepted, "読み取りました。カードをお取りください。", "Accepted. Please take your card."}
	}
	if f, ok := refusals[reason]; ok {
		return f
	}
	return Feedback{SignRefused, "読み取れません。係員をお呼びください。", "The card can't be read. Please call the staff."}
}
