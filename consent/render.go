package consent

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"
)

//go:embed notice.html.tmpl
var noticeHTML string

var noticeTemplate = template.Must(template.New("notice").Parse(noticeHTML))

// words are the fixed words of a notice. They belong to what the digest
// covers: a change of a word makes another rendering.
type words struct {
	Title, Preamble                                                                  string
	Service, Purpose, Operator, Recorded, ID, NotRecorded, PIN, Protection           string
	Term, Retention, Basis, Withdrawal, Contact                                      string
	NeverText, WithdrawalText, VoluntaryText, Agree, Date, Signature, Office, Digest string
	NoItems, Because                                                                 string
}

var notices = map[string]words{
	"ja": {
		Title:          "個人番号カードの空き領域の利用に関する説明書・同意書",
		Preamble:       "次のサービスのために、あなたの個人番号カード（マイナンバーカード）の空き領域に情報を記録します。内容をお読みいただき、同意される場合に限り記録します。",
		VoluntaryText:  "同意するかどうかは自由です。同意しなくても、カードの他の機能はそのまま使えます。",
		Service:        "サービス",
		Purpose:        "利用目的",
		Operator:       "運営主体",
		Recorded:       "カードに記録する情報",
		ID:             "番号（ID）",
		NoItems:        "番号のほかに記録する情報はありません。",
		Because:        "理由：",
		NotRecorded:    "記録しない情報",
		NeverText:      "個人番号（マイナンバー）は記録せず、読み取ることもありません。カードの他の情報には触れません。",
		PIN:            "暗証番号",
		Protection:     "読み取りと保護",
		Term:           "利用期間",
		Retention:      "運営主体での記録の保存",
		Basis:          "法的根拠",
		Withdrawal:     "同意の撤回",
		WithdrawalText: "いつでも下記の窓口で撤回できます。撤回されると、カードに記録した情報を消去します。カードの更新や再交付の際は、改めて同意をいただいて記録します。",
		Contact:        "問い合わせ先",
		Agree:          "上記の説明を受け、記録に同意します。",
		Date:           "年月日",
		Signature:      "署名",
		Office:         "受付番号・担当",
		Digest:         "サービスマニフェスト SHA-256",
	},
	"en": {
		Title:          "Use of the Free Area of the Individual Number Card: Notice and Consent",
		Preamble:       "For the service below, information is recorded in the free area of your Individual Number Card (My Number Card). Please read this notice. Nothing is recorded unless you agree.",
		VoluntaryText:  "You are free to agree or not. If you don't, everything else on your card works as before.",
		Service:        "Service",
		Purpose:        "Purpose of use",
		Operator:       "Operator",
		Recorded:       "What is recorded on the card",
		ID:             "Number (ID)",
		NoItems:        "Nothing besides the number is recorded.",
		Because:        "Reason: ",
		NotRecorded:    "What is not recorded",
		NeverText:      "Your Individual Number (My Number) is neither recorded nor read. Nothing else on the card is touched.",
		PIN:            "PIN",
		Protection:     "Reading and protection",
		Term:           "Term",
		Retention:      "Records kept by the operator",
		Basis:          "Basis in law",
		Withdrawal:     "Withdrawing your consent",
		WithdrawalText: "You can withdraw your consent at any time at the contact below. What was recorded on the card is then erased. When your card is renewed or replaced, you are asked again before anything is recorded.",
		Contact:        "Contact",
		Agree:          "I have been told the above and agree to the recording.",
		Date:           "Date",
		Signature:      "Signature",
		Office:         "Receipt number, clerk",
		Digest:         "Service manifest SHA-256",
	},
}

// Render words what the holder is shown for a service, in a language ("ja",
// "en"), when these items are to be recorded beside the ID: as text in UTF-8,
// or as an HTML page to be printed on A4, with room for a signature. The same
// arguments give the same bytes.
func Render(s Service, lang string, items []string, format ShowFormat) ([]byte, error) {
	w, ok := notices[lang]
	if !ok {
		return nil, fmt.Errorf("consent notice of service %s: no language %q", s.ServiceID(), lang)
	}
	items, err := inOrder(s, items)
	if err != nil {
		return nil, err
	}
	d, err := s.Disclosure(lang, items)
	if err != nil {
		return nil, err
	}
	digest := Hash(s.Digest()).String()
	switch format {
	case Text:
		return renderText(w, d, digest), nil
	case HTML:
		var b bytes.Buffer
		err := noticeTemplate.Execute(&b, map[string]any{"Lang": lang, "W": w, "D": d, "Digest": digest})
		return b.Bytes(), err
	}
	return nil, fmt.Errorf("consent notice of service %s: no format %q", s.ServiceID(), format)
}

func renderText(w words, d Disclosure, digest string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n%s\n%s\n", w.Title, w.Preamble, w.VoluntaryText)
	section := func(heading string, paragraphs ...string) {
		fmt.Fprintf(&b, "\n■ %s\n", heading)
		for _, p := range paragraphs {
			for line := range strings.Lines(strings.TrimSpace(p)) {
				fmt.Fprintf(&b, "  %s\n", strings.TrimRight(line, "\n"))
			}
		}
	}
	section(w.Service, d.Service)
	section(w.Purpose, d.Purpose)
	section(w.Operator, d.Operator)
	recorded := []string{"- " + w.ID + ": " + d.ID}
	for _, it := range d.Items {
		recorded = append(recorded, "- "+it[0]+"\n  "+w.Because+strings.ReplaceAll(strings.TrimSpace(it[1]), "\n", "\n  "))
	}
	if len(d.Items) == 0 {
		recorded = append(recorded, w.NoItems)
	}
	section(w.Recorded, recorded...)
	section(w.NotRecorded, w.NeverText)
	if d.PIN != "" {
		section(w.PIN, d.PIN)
	}
	if d.Protection != "" {
		section(w.Protection, d.Protection)
	}
	section(w.Term, d.Term)
	section(w.Retention, d.Retention)
	section(w.Basis, d.Basis)
	section(w.Withdrawal, w.WithdrawalText)
	section(w.Contact, d.Contact)
	fmt.Fprintf(&b, "\n%s: %s\n", w.Digest, digest)
	return b.Bytes()
}
