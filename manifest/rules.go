package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/freearea/freearea/applets/recipe"
)

// Rule names what a fault violates. It is an error, so that
// errors.Is(err, manifest.RuleIndividualNumber) finds a fault among others.
type Rule string

// Error returns the rule's name.
func (r Rule) Error() string { return string(r) }

// The rules. Names are stable: translators, tests and procedures refer to them.
const (
	// The file.
	RuleUnreadable     Rule = "unreadable"
	RuleTooLarge       Rule = "too-large"
	RuleSyntax         Rule = "syntax"
	RuleUnknownKey     Rule = "unknown-key"
	RuleUnknownKeyNear Rule = "unknown-key-near"
	RuleWrongType      Rule = "wrong-type"
	RuleTooMany        Rule = "too-many"
	RuleFormat         Rule = "format"
	RuleMissing        Rule = "missing"
	RuleBlank          Rule = "blank"
	RuleChoice         Rule = "choice"
	RuleRange          Rule = "range"
	RuleText           Rule = "text"
	RuleTextLength     Rule = "text-length"
	RuleServiceID      Rule = "service-id"

	// Law.
	RulePurposeJapanese       Rule = "purpose-japanese"
	RuleIndividualNumber      Rule = "individual-number"
	RuleBasisUnknown          Rule = "basis-unknown"
	RuleBasisKind             Rule = "basis-kind"
	RuleBasisOrdinance        Rule = "basis-ordinance"
	RuleBasisNotice           Rule = "basis-notice"
	RulePrivateBusinessNotice Rule = "private-business-notice"
	RuleBasisOther            Rule = "basis-other-document"

	// Only the minimum.
	RuleMinimumReason Rule = "minimum-reason"
	RuleMinimumIDOnly Rule = "minimum-id-only"

	// Profile and keys.
	RuleProfileUnknown   Rule = "profile-unknown"
	RulePINNotAllowed    Rule = "pin-not-allowed"
	RulePINSettings      Rule = "pin-settings"
	RulePINDigits        Rule = "pin-digits"
	RuleMutual           Rule = "mutual-authentication"
	RuleReadKeyUnused    Rule = "read-key-unused"
	RuleKeyName          Rule = "key-name"
	RuleKeysSame         Rule = "keys-same"
	RuleDiversification  Rule = "diversification-unknown"
	RuleDiversifyNone    Rule = "diversification-none"
	RuleDiversifyMissing Rule = "diversification-missing"

	// AIDs and load file.
	RuleAIDMalformed    Rule = "aid-malformed"
	RuleAIDCategory     Rule = "aid-category"
	RuleAIDCardsOwn     Rule = "aid-cards-own"
	RuleAIDClash        Rule = "aid-clash"
	RuleAIDTaken        Rule = "aid-taken"
	RuleHashMalformed   Rule = "hash-malformed"
	RuleLoadFilePath    Rule = "load-file-path"
	RuleLoadFile        Rule = "load-file-unreadable"
	RuleLoadFileHash    Rule = "load-file-hash"
	RuleLoadFilePackage Rule = "load-file-package"
	RuleLoadFileModule  Rule = "load-file-module"
	RuleMemory          Rule = "memory"

	// Items.
	RuleItemsCount    Rule = "items-count"
	RuleItemsSize     Rule = "items-size"
	RuleItemName      Rule = "item-name"
	RuleItemDuplicate Rule = "item-duplicate"

	// ID scheme.
	RuleIDPrefix           Rule = "id-prefix"
	RuleIDLength           Rule = "id-length"
	RuleIDMinLength        Rule = "id-min-length"
	RuleIDCheckAlphabet    Rule = "id-check-alphabet"
	RuleIDIndividualNumber Rule = "id-individual-number"

	// Terms.
	RuleTerm           Rule = "term"
	RuleTermLength     Rule = "term-length"
	RuleConsentMethods Rule = "consent-methods"

	// Applications of one's own.
	RuleCustomUnused    Rule = "custom-unused"
	RuleHexMalformed    Rule = "hex-malformed"
	RuleTagMalformed    Rule = "tag-malformed"
	RuleStatusMalformed Rule = "status-malformed"
	RuleRecipeFormat    Rule = "recipe-format"
	RuleRecipeFile      Rule = "recipe-file-name"

	RuleRecipeOneOf       Rule = recipe.RuleOneOf
	RuleRecipeNotHere     Rule = recipe.RuleNotHere
	RuleRecipeSize        Rule = recipe.RuleSize
	RuleRecipeIdentifier  Rule = recipe.RuleIdentifier
	RuleRecipeDepth       Rule = recipe.RuleDepth
	RuleRecipeCount       Rule = recipe.RuleCount
	RuleRecipePINInClear  Rule = recipe.RulePINInClear
	RuleRecipeConstant    Rule = recipe.RuleConstant
	RuleRecipeSource      Rule = recipe.RuleSource
	RuleRecipeName        Rule = recipe.RuleName
	RuleRecipeNameTwice   Rule = recipe.RuleNameTwice
	RuleRecipeNotWritten  Rule = recipe.RuleNotWritten
	RuleRecipeNotRead     Rule = recipe.RuleNotRead
	RuleRecipeItemUnknown Rule = recipe.RuleItemUnknown
	RuleRecipePINPolicy   Rule = recipe.RulePINPolicy
	RuleRecipeObject      Rule = recipe.RuleObject
	RuleRecipeVerifyTwice Rule = recipe.RuleVerifyTwice

	// Subjects.
	RuleSubjectID          Rule = "subject-id"
	RuleSubjectItemUnknown Rule = "subject-item-unknown"
	RuleSubjectItemMissing Rule = "subject-item-missing"
	RuleSubjectItemValue   Rule = "subject-item-value"
	RuleSubjectItemLength  Rule = "subject-item-length"
	RuleSubjectPINMissing  Rule = "subject-pin-missing"
	RuleSubjectPINUnused   Rule = "subject-pin-unused"
	RuleSubjectPIN         Rule = "subject-pin"
)

// ruleText is what people read of a rule: what is wrong, and what to do. The
// verbs are filled with a fault's arguments.
type ruleText struct{ message, hint Text }

// ruleTexts is the one table of texts. No text repeats a value that may be
// personal data, a PIN or an Individual Number.
var ruleTexts = map[Rule]ruleText{
	RuleUnreadable: {
		Text{EN: "the manifest can't be read: %v", JA: "マニフェストを読み込めません: %v"},
		Text{EN: "check the path and its permissions", JA: "パスとアクセス権を確認してください"},
	},
	RuleTooLarge: {
		Text{EN: "the manifest is larger than %d bytes", JA: "マニフェストが %d バイトを超えています"},
		Text{EN: "give the path of a service manifest; texts belong into it in the length a holder can read", JA: "サービスマニフェストのパスを指定してください。文章は本人が読み切れる長さにしてください"},
	},
	RuleSyntax: {
		Text{EN: "not TOML: %s", JA: "TOML の書式ではありません: %s"},
		Text{EN: "mend this place first; other faults show after that", JA: "まずこの箇所を直してください。他の誤りはその後に表示されます"},
	},
	RuleUnknownKey: {
		Text{EN: "unknown key", JA: "未知のキーです"},
		Text{EN: "keys here: %s", JA: "ここで使えるキー: %s"},
	},
	RuleUnknownKeyNear: {
		Text{EN: "unknown key", JA: "未知のキーです"},
		Text{EN: "did you mean %q?", JA: "%q の誤りではありませんか"},
	},
	RuleWrongType: {
		Text{EN: "must be %[1]s, not %[2]s", JA: "%[2]sではなく%[1]sで書く必要があります"},
		Text{EN: "write %[1]s", JA: "%[1]sで書いてください"},
	},
	RuleTooMany: {
		Text{EN: "more than %d elements", JA: "要素が %d 個を超えています"},
		Text{EN: "keep what the service can't do without", JA: "サービスに欠かせないものだけを残してください"},
	},
	RuleFormat: {
		Text{EN: "not a manifest of format %d", JA: "形式 %d のマニフェストではありません"},
		Text{EN: "begin the file with: manifest = %d", JA: "ファイルの先頭に manifest = %d と書いてください"},
	},
	RuleMissing: {
		Text{EN: "missing", JA: "記載がありません"},
		Text{EN: "add it: %s", JA: "追記してください: %s"},
	},
	RuleBlank: {
		Text{EN: "not filled in yet", JA: "まだ記入されていません"},
		Text{EN: "replace the text in angle brackets", JA: "山括弧の部分を実際の内容に置き換えてください"},
	},
	RuleChoice: {
		Text{EN: "%[1]q is not among the values allowed", JA: "%[1]q は指定できない値です"},
		Text{EN: "choose one of: %[2]s", JA: "次から選んでください: %[2]s"},
	},
	RuleRange: {
		Text{EN: "must be from %[1]d to %[2]d", JA: "%[1]d から %[2]d までの値でなければなりません"},
		Text{EN: "give a number from %[1]d to %[2]d", JA: "%[1]d から %[2]d までの数を指定してください"},
	},
	RuleText: {
		Text{EN: "holds a control character or a line break that can't be shown", JA: "表示できない制御文字または改行を含んでいます"},
		Text{EN: "write plain text; names stand on one line", JA: "通常の文字だけで書いてください。名称は1行で書きます"},
	},
	RuleTextLength: {
		Text{EN: "longer than %d characters", JA: "%d 文字を超えています"},
		Text{EN: "shorten it to what a holder reads at a counter", JA: "窓口で読める長さに縮めてください"},
	},
	RuleServiceID: {
		Text{EN: "a service id has 1 to 32 of a-z, 0-9 and hyphens, and begins with a letter", JA: "サービス ID は a-z、0-9、ハイフンからなる 1〜32 文字で、英字で始まる必要があります"},
		Text{EN: "for example: city-library", JA: "例: city-library"},
	},

	RulePurposeJapanese: {
		Text{EN: "the purpose is not given in Japanese", JA: "利用目的が日本語で示されていません"},
		Text{EN: "the purpose is shown to the holder before the card is used (Enforcement Order art. 18): write it in Japanese", JA: "利用目的は利用の前に本人へ明示します（番号法施行令第18条）。日本語で記載してください"},
	},
	RuleIndividualNumber: {
		Text{EN: "holds 12 digits that form an Individual Number", JA: "個人番号（マイナンバー）の形をした 12 桁の数字を含んでいます"},
		Text{EN: "an Individual Number has no place in a free-area application: use another number", JA: "空き領域のアプリケーションに個人番号は記録できません。別の番号を使ってください"},
	},
	RuleBasisUnknown: {
		Text{EN: "%[1]q is not in the table of bases in law", JA: "%[1]q は法的根拠の表にありません"},
		Text{EN: "choose one of: %[2]s", JA: "次から選んでください: %[2]s"},
	},
	RuleBasisKind: {
		Text{EN: "%[1]s does not cover an operator of the kind %[2]q", JA: "%[1]s は運営主体の種別 %[2]q を対象としていません"},
		Text{EN: "for this kind of body use: %[3]s", JA: "この種別の主体に使えるもの: %[3]s"},
	},
	RuleBasisOrdinance: {
		Text{EN: "the ordinance that names this work is missing", JA: "この事務を定める条例の記載がありません"},
		Text{EN: "%s rests on an ordinance: give its name, number and article", JA: "%s は条例に基づきます。条例の名称、番号、条を記載してください"},
	},
	RuleBasisNotice: {
		Text{EN: "the notice that names this work is missing", JA: "この事務を定める告示の記載がありません"},
		Text{EN: "%s rests on the Minister's notice: give its number and date", JA: "%s は主務大臣の告示に基づきます。告示の番号と日付を記載してください"},
	},
	RulePrivateBusinessNotice: {
		Text{EN: "a private business must name the notice that allows this work", JA: "民間事業者は、この事務を認める告示を示す必要があります"},
		Text{EN: "%s: give the notice's number and date", JA: "%s: 告示の番号と日付を記載してください"},
	},
	RuleBasisOther: {
		Text{EN: "%[1]s does not rest on such a document", JA: "%[1]s はこの種の文書に基づくものではありません"},
		Text{EN: "remove this, or correct the basis", JA: "これを削除するか、根拠を訂正してください"},
	},

	RuleMinimumReason: {
		Text{EN: "the item does not say why it is needed", JA: "この項目が必要な理由が書かれていません"},
		Text{EN: "only the minimum is recorded: give the reason that the holder is told, or remove the item", JA: "記録は必要最小限に限られます。本人に示す理由を書くか、項目を削除してください"},
	},
	RuleMinimumIDOnly: {
		Text{EN: "the profile %q records an ID and nothing else", JA: "プロファイル %q に記録できるのは ID だけです"},
		Text{EN: "remove the items, or choose type-a or type-d", JA: "項目を削除するか、type-a または type-d を選んでください"},
	},

	RuleProfileUnknown: {
		Text{EN: "unknown profile %[1]q", JA: "プロファイル %[1]q は存在しません"},
		Text{EN: "choose one of: %[2]s", JA: "次から選んでください: %[2]s"},
	},
	RulePINNotAllowed: {
		Text{EN: "the profile %q has no PIN", JA: "プロファイル %q に暗証番号はありません"},
		Text{EN: "remove the table [pin], or choose type-a or type-d", JA: "[pin] を削除するか、type-a または type-d を選んでください"},
	},
	RulePINSettings: {
		Text{EN: "a setting for a PIN, but the policy is none", JA: "暗証番号の設定がありますが、policy は none です"},
		Text{EN: `remove it, or write policy = "required"`, JA: `これを削除するか、policy = "required" と書いてください`},
	},
	RulePINDigits: {
		Text{EN: "max_digits %[2]d is below min_digits %[1]d", JA: "max_digits %[2]d が min_digits %[1]d より小さくなっています"},
		Text{EN: "give min_digits at most %[2]d", JA: "min_digits を %[2]d 以下にしてください"},
	},
	RuleMutual: {
		Text{EN: "the profile %q demands mutual authentication, and no read key is named", JA: "プロファイル %q は相互認証を必要としますが、読取鍵が指定されていません"},
		Text{EN: "name the read key of the key store", JA: "鍵ストアの読取鍵の名前を指定してください"},
	},
	RuleReadKeyUnused: {
		Text{EN: "the profile %q is read without a key", JA: "プロファイル %q は鍵なしで読み取られます"},
		Text{EN: "remove it, or choose type-a or type-d", JA: "これを削除するか、type-a または type-d を選んでください"},
	},
	RuleKeyName: {
		Text{EN: "a key name has 1 to 64 of a-z, 0-9, hyphens and dots, and begins with a letter", JA: "鍵の名前は a-z、0-9、ハイフン、ピリオドからなる 1〜64 文字で、英字で始まる必要があります"},
		Text{EN: "for example: library-read", JA: "例: library-read"},
	},
	RuleKeysSame: {
		Text{EN: "one name for keys of two kinds", JA: "種類の異なる鍵に同じ名前が使われています"},
		Text{EN: "give the issuer signing key a name of its own", JA: "発行者署名鍵に別の名前を付けてください"},
	},
	RuleDiversification: {
		Text{EN: "unknown diversification method %[1]q", JA: "鍵分散方式 %[1]q は存在しません"},
		Text{EN: "choose one of: %[2]s", JA: "次から選んでください: %[2]s"},
	},
	RuleDiversifyNone: {
		Text{EN: "the profile %q asks for diversified keys: with %q one opened card opens all", JA: "プロファイル %q では鍵の分散が必要です。%q では1枚の鍵の漏えいが全カードに及びます"},
		Text{EN: "write diversification = \"sp800-108-cmac\"", JA: "diversification = \"sp800-108-cmac\" と書いてください"},
	},
	RuleDiversifyMissing: {
		Text{EN: "the diversification method is missing", JA: "鍵分散方式の記載がありません"},
		Text{EN: "there is no default; choose one of: %s", JA: "既定値はありません。次から選んでください: %s"},
	},

	RuleAIDMalformed: {
		Text{EN: "not an AID: 5 to 16 bytes in hexadecimal digits", JA: "AID ではありません。16 進数で 5〜16 バイトを書きます"},
		Text{EN: "for example: F0112233445566778899", JA: "例: F0112233445566778899"},
	},
	RuleAIDCategory: {
		Text{EN: "an AID of this category can't be assigned to an application", JA: "この区分の AID はアプリケーションに割り当てられません"},
		Text{EN: "begin with F (unregistered), or use one registered for you (A or D)", JA: "F（未登録）で始めるか、登録済みの AID（A または D）を使ってください"},
	},
	RuleAIDCardsOwn: {
		Text{EN: "this AID belongs to the card itself (%s)", JA: "この AID はカード自身のものです（%s）"},
		Text{EN: "use an AID of your own; `manifest new` draws one", JA: "独自の AID を使ってください。manifest new で生成できます"},
	},
	RuleAIDClash: {
		Text{EN: "selecting one of this AID and %s would select the other", JA: "この AID と %s は、一方を選択すると他方が選択されるおそれがあります"},
		Text{EN: "choose an AID that is neither equal to the other nor its beginning", JA: "互いに等しくなく、一方が他方の先頭部分にならない AID を選んでください"},
	},
	RuleAIDTaken: {
		Text{EN: "the ledger has this AID for the service %q", JA: "この AID は台帳ではサービス %q のものです"},
		Text{EN: "draw another with `manifest new`", JA: "manifest new で別の AID を生成してください"},
	},
	RuleHashMalformed: {
		Text{EN: "not a SHA-256 digest: 64 hexadecimal digits", JA: "SHA-256 のハッシュ値ではありません。16 進数 64 桁で書きます"},
		Text{EN: "take it of the load file data block, not of the CAP file", JA: "CAP ファイル全体ではなく、ロードファイルデータブロックのハッシュ値を使ってください"},
	},
	RuleLoadFilePath: {
		Text{EN: "the path of the load file leaves the manifest's folder", JA: "ロードファイルのパスがマニフェストのフォルダーの外を指しています"},
		Text{EN: "give a relative path within the folder, or builtin:base", JA: "フォルダー内の相対パスか builtin:base を指定してください"},
	},
	RuleLoadFile: {
		Text{EN: "the load file can't be read: %v", JA: "ロードファイルを読み込めません: %v"},
		Text{EN: "check the path, which is relative to the manifest", JA: "マニフェストからの相対パスを確認してください"},
	},
	RuleLoadFileHash: {
		Text{EN: "the load file has another hash: %s", JA: "ロードファイルのハッシュ値が異なります: %s"},
		Text{EN: "take the file that was approved; write the new hash only after approving the new file", JA: "承認済みのファイルを使ってください。新しいハッシュ値を書くのは、新しいファイルを承認した後に限ります"},
	},
	RuleLoadFilePackage: {
		Text{EN: "the load file holds the package %s", JA: "ロードファイルのパッケージは %s です"},
		Text{EN: "correct the package AID, or the path", JA: "package の AID またはパスを訂正してください"},
	},
	RuleLoadFileModule: {
		Text{EN: "the load file has no such module; it has: %s", JA: "ロードファイルにこのモジュールはありません。含まれるもの: %s"},
		Text{EN: "correct the module AID, or the path", JA: "module の AID またはパスを訂正してください"},
	},
	RuleMemory: {
		Text{EN: "the application needs %d bytes", JA: "アプリケーションには %d バイトが必要です"},
		Text{EN: "give at least this number, or remove the key", JA: "この数以上を指定するか、このキーを削除してください"},
	},

	RuleItemsCount: {
		Text{EN: "more than %d items", JA: "項目が %d 個を超えています"},
		Text{EN: "only the minimum is recorded: remove items", JA: "記録は必要最小限に限られます。項目を減らしてください"},
	},
	RuleItemsSize: {
		Text{EN: "the items may take %[1]d bytes; a card holds %[2]d", JA: "項目は最大 %[1]d バイトになりますが、カードに記録できるのは %[2]d バイトです"},
		Text{EN: "lower max_length or remove items; a character of text may take 4 bytes", JA: "max_length を小さくするか項目を減らしてください。text の 1 文字は最大 4 バイトです"},
	},
	RuleItemName: {
		Text{EN: "an item's name has 1 to 16 of a-z, 0-9 and hyphens, and begins with a letter", JA: "項目名は a-z、0-9、ハイフンからなる 1〜16 文字で、英字で始まる必要があります"},
		Text{EN: "for example: department; what people read is the label", JA: "例: department。本人に見せる名称は label に書きます"},
	},
	RuleItemDuplicate: {
		Text{EN: "two items have the name %q", JA: "項目名 %q が重複しています"},
		Text{EN: "give each item a name of its own", JA: "項目ごとに異なる名前を付けてください"},
	},

	RuleIDPrefix: {
		Text{EN: "a prefix has at most 16 of 0-9, A-Z, a-z and hyphens", JA: "接頭辞は 0-9、A-Z、a-z、ハイフンからなる 16 文字以内で書きます"},
		Text{EN: "for example: LIB-", JA: "例: LIB-"},
	},
	RuleIDLength: {
		Text{EN: "IDs would have %[1]d characters; 1 to %[2]d are allowed", JA: "ID が %[1]d 文字になります。1〜%[2]d 文字でなければなりません"},
		Text{EN: "change length or prefix", JA: "length または prefix を変更してください"},
	},
	RuleIDMinLength: {
		Text{EN: "min_length is for given IDs, from 1 to length", JA: "min_length は given の ID だけに使い、1 以上 length 以下で指定します"},
		Text{EN: "remove min_length or correct it", JA: "min_length を削除または訂正してください"},
	},
	RuleIDCheckAlphabet: {
		Text{EN: "the algorithm %[1]q covers %[2]s only", JA: "アルゴリズム %[1]q が扱えるのは %[2]s だけです"},
		Text{EN: "change the check algorithm, the alphabet or the prefix", JA: "検査文字のアルゴリズム、alphabet、prefix のいずれかを変更してください"},
	},
	RuleIDIndividualNumber: {
		Text{EN: "such IDs can be 12 bare digits, as an Individual Number is", JA: "この形式の ID は個人番号と同じ 12 桁の数字になり得ます"},
		Text{EN: "change the length, or put letters into the prefix's end or the alphabet", JA: "桁数を変えるか、接頭辞の末尾や alphabet に英字を入れてください"},
	},

	RuleTerm: {
		Text{EN: "the term is not clear", JA: "有効期間が定まりません"},
		Text{EN: "write either card_expiry = true, or years, months or days", JA: "card_expiry = true か、years、months、days のいずれかを書いてください"},
	},
	RuleTermLength: {
		Text{EN: "longer than any card is valid", JA: "カードの有効期間を超えています"},
		Text{EN: "a card is valid for 10 years at most: shorten the term, or write card_expiry = true", JA: "カードの有効期間は最長 10 年です。期間を短くするか card_expiry = true としてください"},
	},
	RuleConsentMethods: {
		Text{EN: "no method of consent, or one named twice", JA: "同意の方法がないか、重複しています"},
		Text{EN: `for example: methods = ["paper", "screen"]`, JA: `例: methods = ["paper", "screen"]`},
	},

	RuleCustomUnused: {
		Text{EN: "the profile is not custom, so this table says nothing", JA: "プロファイルが custom ではないため、このテーブルは使われません"},
		Text{EN: `remove it, or write profile = "custom"`, JA: `これを削除するか、profile = "custom" と書いてください`},
	},
	RuleHexMalformed: {
		Text{EN: "not bytes in hexadecimal digits", JA: "16 進数で書いたバイト列ではありません"},
		Text{EN: "for example: 01 02 0A", JA: "例: 01 02 0A"},
	},
	RuleTagMalformed: {
		Text{EN: "not a BER-TLV tag of 1 to 3 bytes", JA: "1〜3 バイトの BER-TLV タグではありません"},
		Text{EN: "for example: C1, 5F20 or DF8101", JA: "例: C1、5F20、DF8101"},
	},
	RuleStatusMalformed: {
		Text{EN: "not a status word", JA: "ステータスワードではありません"},
		Text{EN: "4 hexadecimal digits that begin with 6 or 9: 9000", JA: "6 または 9 で始まる 16 進数 4 桁で書いてください。例: 9000"},
	},
	RuleRecipeFormat: {
		Text{EN: "not a profile of format %d", JA: "形式 %d のプロファイルではありません"},
		Text{EN: "begin the file with: recipe = %d", JA: "ファイルの先頭に recipe = %d と書いてください"},
	},
	RuleRecipeFile: {
		Text{EN: "the file's name is not that of a new profile", JA: "ファイル名が新しいプロファイルの名前になっていません"},
		Text{EN: "name it NAME.toml: 1 to 32 of a-z, 0-9 and hyphens, a letter first, and no profile that there is already", JA: "a-z、0-9、ハイフンからなる 1〜32 文字で英字から始まり、既存のプロファイルと異なる名前を付け、名前.toml としてください"},
	},
	RuleRecipeOneOf: {
		Text{EN: "exactly one of these keys is needed: %s", JA: "次のキーのうち 1 つだけが必要です: %s"},
		Text{EN: "keep the one that is meant", JA: "意図したものだけを残してください"},
	},
	RuleRecipeNotHere: {
		Text{EN: "this key does not go with: %s", JA: "このキーは次のものと併用できません: %s"},
		Text{EN: "remove one or the other", JA: "どちらかを削除してください"},
	},
	RuleRecipeSize: {
		Text{EN: "%d bytes are allowed here", JA: "ここに書けるのは %d バイトです"},
		Text{EN: "write this number of bytes, or no more", JA: "この長さを守ってください"},
	},
	RuleRecipeIdentifier: {
		Text{EN: "not an identifier of this format", JA: "この形式の識別子ではありません"},
		Text{EN: "a DGI has 2 bytes; with ber-tlv it is a tag of 1 to 3 bytes", JA: "DGI は 2 バイト、ber-tlv では 1〜3 バイトのタグです"},
	},
	RuleRecipeDepth: {
		Text{EN: "more than %d levels", JA: "%d 段を超えています"},
		Text{EN: "make it flatter", JA: "段数を減らしてください"},
	},
	RuleRecipeCount: {
		Text{EN: "more than %d", JA: "%d 個を超えています"},
		Text{EN: "keep what is needed", JA: "必要なものだけを残してください"},
	},
	RuleRecipePINInClear: {
		Text{EN: "the PIN would be written without encryption", JA: "暗証番号が暗号化されずに書き込まれます"},
		Text{EN: "put it into parts with encrypt = true", JA: "encrypt = true の parts に入れてください"},
	},
	RuleRecipeConstant: {
		Text{EN: "erasing can't write a value", JA: "消去で値を書き込むことはできません"},
		Text{EN: "write constants (hex) only", JA: "定数（hex）だけを書いてください"},
	},
	RuleRecipeSource: {
		Text{EN: "nothing named %[1]q was read before", JA: "%[1]q という名前の読み取りが、これより前にありません"},
		Text{EN: "names here: %[2]s", JA: "ここで使える名前: %[2]s"},
	},
	RuleRecipeName: {
		Text{EN: "a step's name has 1 to 16 of a-z, 0-9 and hyphens, begins with a letter and is not \"answer\"", JA: "名前は a-z、0-9、ハイフンからなる 1〜16 文字で、英字で始まり、answer 以外でなければなりません"},
		Text{EN: "for example: data", JA: "例: data"},
	},
	RuleRecipeNameTwice: {
		Text{EN: "the name %q is used twice", JA: "名前 %q が重複しています"},
		Text{EN: "give each its own", JA: "それぞれ異なる名前を付けてください"},
	},
	RuleRecipeNotWritten: {
		Text{EN: "nothing writes this: %s", JA: "書き込みの記述がありません: %s"},
		Text{EN: "add a part for it to a group; without the tag no run knows what a card holds", JA: "group に part を追加してください。tag がないと、カードの内容を後で確認できません"},
	},
	RuleRecipeNotRead: {
		Text{EN: "nothing reads this: %s", JA: "読み取りの記述がありません: %s"},
		Text{EN: "say where it stands, or don't record it", JA: "どこにあるかを書くか、記録しないでください"},
	},
	RuleRecipeItemUnknown: {
		Text{EN: "the service has no item %q", JA: "サービスに項目 %q はありません"},
		Text{EN: "only declared items are recorded: remove this, or declare the item", JA: "記録できるのは定めた項目だけです。これを削除するか、項目を定めてください"},
	},
	RuleRecipePINPolicy: {
		Text{EN: "the application and the table [pin] disagree on whether there is a PIN", JA: "暗証番号の有無が、アプリケーションと [pin] で一致していません"},
		Text{EN: "write policy = \"required\" where the application has a PIN, and only there", JA: "アプリケーションに暗証番号がある場合に限り policy = \"required\" と書いてください"},
	},
	RuleRecipeObject: {
		Text{EN: "GET DATA takes a tag of 1 or 2 bytes", JA: "GET DATA のタグは 1〜2 バイトです"},
		Text{EN: "for example: tag = \"DF40\"", JA: "例: tag = \"DF10\""},
	},
	RuleRecipeVerifyTwice: {
		Text{EN: "a second PIN", JA: "2 つ目の暗証番号です"},
		Text{EN: "a recipe has one PIN at most", JA: "暗証番号は 1 つまでです"},
	},

	RuleSubjectID: {
		Text{EN: "the ID does not fit the manifest's scheme: %v", JA: "ID がマニフェストの形式に合いません: %v"},
		Text{EN: "compare it with the business system, and look for a mistyped character", JA: "業務システムと照合し、入力誤りがないか確認してください"},
	},
	RuleSubjectItemUnknown: {
		Text{EN: "the manifest has no such item", JA: "マニフェストにない項目です"},
		Text{EN: "leave it out: only what the manifest declares is recorded", JA: "削除してください。記録できるのはマニフェストに定めた項目だけです"},
	},
	RuleSubjectItemMissing: {
		Text{EN: "a required item is missing", JA: "必須の項目がありません"},
		Text{EN: "ask for: %s", JA: "確認してください: %s"},
	},
	RuleSubjectItemValue: {
		Text{EN: "the value is not of the type %q", JA: "値が型 %q に合いません"},
		Text{EN: "digits: 0-9; alphanumeric: 0-9, A-Z, a-z and hyphens; date: YYYY-MM-DD; text: no control characters", JA: "digits は 0-9、alphanumeric は 0-9、A-Z、a-z、ハイフン、date は YYYY-MM-DD、text は制御文字を除く文字です"},
	},
	RuleSubjectItemLength: {
		Text{EN: "the value has %[1]d characters; %[2]d are allowed", JA: "値が %[1]d 文字あります。%[2]d 文字以内でなければなりません"},
		Text{EN: "shorten it to %[2]d characters", JA: "%[2]d 文字以内に縮めてください"},
	},
	RuleSubjectPINMissing: {
		Text{EN: "the service needs a PIN", JA: "このサービスには暗証番号が必要です"},
		Text{EN: "let the holder choose one of %[1]d to %[2]d digits", JA: "本人に %[1]d〜%[2]d 桁の暗証番号を決めてもらってください"},
	},
	RuleSubjectPINUnused: {
		Text{EN: "the service has no PIN", JA: "このサービスに暗証番号はありません"},
		Text{EN: "leave it out", JA: "指定しないでください"},
	},
	RuleSubjectPIN: {
		Text{EN: "the PIN must have %[1]d to %[2]d digits, 0-9 only", JA: "暗証番号は 0-9 の数字 %[1]d〜%[2]d 桁でなければなりません"},
		Text{EN: "let the holder choose another", JA: "本人に別の暗証番号を決めてもらってください"},
	},
}

// Fault is one violation of one rule.
type Fault struct {
	File   string // as given to Load or Parse; "" for a subject
	Line   int    // from 1; 0 when unknown
	Column int    // in bytes from 1; 0 when unknown
	Key    string // path of the key, as in items[0].reason.ja; may be ""
	Rule   Rule

	args []any
}

// Message says what is wrong, in "ja" or "en".
func (f Fault) Message(lang string) string {
	return fill(ruleTexts[f.Rule].message.In(lang), lang, f.args)
}

// Hint says what to do, in "ja" or "en".
func (f Fault) Hint(lang string) string {
	return fill(ruleTexts[f.Rule].hint.In(lang), lang, f.args)
}

// Place is file:line:column of what is known of them.
func (f Fault) Place() string {
	place := f.File
	if f.Line > 0 {
		place += fmt.Sprintf(":%d", f.Line)
	}
	if f.Column > 0 {
		place += fmt.Sprintf(":%d", f.Column)
	}
	return strings.TrimPrefix(place, ":")
}

// Error is the place, the key, the message and the rule, in English.
func (f Fault) Error() string {
	var b strings.Builder
	for _, part := range []string{f.Place(), f.Key} {
		if part != "" {
			b.WriteString(part)
			b.WriteString(": ")
		}
	}
	b.WriteString(f.Message(English))
	fmt.Fprintf(&b, " (%s)", f.Rule)
	return b.String()
}

// Is reports whether target is the fault's rule.
func (f Fault) Is(target error) bool {
	rule, ok := target.(Rule)
	return ok && rule == f.Rule
}

// fill fills the verbs of a text. A text may use some of the arguments, by
// their position.
func fill(text, lang string, args []any) string {
	if !strings.Contains(text, "%") {
		return text
	}
	local := make([]any, len(args))
	for i, a := range args {
		if t, ok := a.(localized); ok {
			a = t.In(lang)
		}
		local[i] = a
	}
	// fmt complains of arguments that plain verbs leave over, not of those
	// that numbered ones do.
	if !strings.Contains(text, "%[") {
		local = local[:min(len(local), strings.Count(text, "%"))]
	}
	return fmt.Sprintf(text, local...)
}

// localized is an argument that reads differently in each language.
type localized interface{ In(lang string) string }

// Faults is a list of faults; as an error it is what [Load], [Parse] and
// [Manifest.CheckSubject] return. It is never empty then.
type Faults []Fault

// Error lists all faults, one a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults, so that errors.Is finds a rule among them.
func (f Faults) Unwrap() []error {
	errs := make([]error, len(f))
	for i := range f {
		errs[i] = f[i]
	}
	return errs
}

// Rules returns the names of all rules, sorted.
func Rules() []Rule { return slices.Sorted(maps.Keys(ruleTexts)) }
