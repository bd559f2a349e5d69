// Blanking and brace matching for tidy_test.
#include "tests/tidy/code_outline.h"

#include <algorithm>
#include <regex>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace shoestring::tidy {
namespace {

bool IsWordCharacter(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// Copies code to `out()`, blanking what is no code.
class Blanker {
 public:
  explicit Blanker(absl::string_view code) : code_(code), out_(code) {}

  std::string Run() {
    while (at_ < code_.size()) Step();
    return std::move(out_);
  }

 private:
  void Step() {
    if (LookingAt("//")) {
      BlankUntil(LineEnd(at_));
    } else if (LookingAt("/*")) {
      BlankUntil(EndOf("*/", at_ + 2));
    } else if (LookingAt("R\"") && !(at_ > 0 && IsWordCharacter(code_[at_ - 1]))) {
      const size_t open = std::min(code_.find('(', at_), code_.size());
      const std::string close = absl::StrCat(")", code_.substr(at_ + 2, open - at_ - 2), "\"");
      BlankUntil(EndOf(close, open));
    } else if (code_[at_] == '"' || (code_[at_] == '\'' && !IsDigitSeparator())) {
      BlankUntil(LiteralEnd());
    } else if (code_[at_] == '#' && IsFirstOnLine()) {
      BlankUntil(DirectiveEnd());
    } else {
      ++at_;
    }
  }

  bool LookingAt(absl::string_view what) const { return absl::StartsWith(code_.substr(at_), what); }
  size_t LineEnd(size_t from) const { return std::min(code_.find('\n', from), code_.size()); }
  size_t EndOf(absl::string_view what, size_t from) const {
    const size_t found = code_.find(what, from);
    return found == absl::string_view::npos ? code_.size() : found + what.size();
  }

  // 1'000: the quote stands inside of a word that begins with a digit.
  bool IsDigitSeparator() const {
    size_t begin = at_;
    while (begin > 0 && (IsWordCharacter(code_[begin - 1]) || code_[begin - 1] == '\'')) --begin;
    return begin < at_ && absl::ascii_isdigit(static_cast<unsigned char>(code_[begin]));
  }

  size_t LiteralEnd() const {
    size_t end = at_ + 1;
    while (end < code_.size() && code_[end] != code_[at_] && code_[end] != '\n') end += code_[end] == '\\' ? 2 : 1;
    return std::min(end + 1, code_.size());
  }

  bool IsFirstOnLine() const {
    size_t before = at_;
    while (before > 0 && (code_[before - 1] == ' ' || code_[before - 1] == '\t')) --before;
    return before == 0 || code_[before - 1] == '\n';
  }

  size_t DirectiveEnd() const {
    size_t end = LineEnd(at_);
    while (end < code_.size() && code_[end - 1] == '\\') end = LineEnd(end + 1);
    return end;
  }

  void BlankUntil(size_t end) {
    for (; at_ < end; ++at_) {
      if (code_[at_] != '\n') out_[at_] = ' ';
    }
  }

  const absl::string_view code_;
  std::string out_;
  size_t at_ = 0;
};

// "std::map<A, B<C>> x" becomes "std::map x", so that what stands in angle brackets misleads nobody.
std::string WithoutTemplateArguments(std::string text) {
  static const std::regex* const innermost = new std::regex("<[^<>;{}]*>");
  while (true) {
    std::string shorter = std::regex_replace(text, *innermost, " ");
    if (shorter == text) return text;
    text = std::move(shorter);
  }
}

bool Matches(const std::string& text, const char* pattern) { return std::regex_search(text, std::regex(pattern)); }

enum class Block { kNamespace, kClass, kFunction, kInitializer };

// What an opening brace opens, by the text in front of it.
Block BlockAfter(const std::string& head) {
  const std::string plain = WithoutTemplateArguments(head);
  const bool has_parentheses = absl::StrContains(plain, "(");
  if (Matches(plain, "^\\s*(inline\\s+)?namespace\\b")) return Block::kNamespace;
  if (Matches(plain, "^\\s*extern\\s*$")) return Block::kNamespace;
  const bool ends_in_parenthesis = absl::EndsWith(absl::StripAsciiWhitespace(plain), ")");
  if (Matches(plain, "^\\s*(template\\s*)?(class|struct|union|enum)\\b") && !ends_in_parenthesis) return Block::kClass;
  if (Matches(plain, "\\b(class|struct|union|enum)\\b") && !has_parentheses) return Block::kClass;
  if (Matches(plain, "\\)[^:]*:(?!:)(.*,)?\\s*\\w+\\s*$")) return Block::kInitializer;  // F() : member_{...} {
  const bool assigns = Matches(plain, "[^=!<>]=[^=]|[^=!<>]=$") && !absl::StrContains(plain, "operator");
  // A parameter with a default value ends in a parenthesis; so does the head of a lambda.
  if (has_parentheses && (!assigns || ends_in_parenthesis)) return Block::kFunction;
  return Block::kInitializer;
}

class Outliner {
 public:
  explicit Outliner(absl::string_view code) : code_(code) {}

  CodeOutline Run() {
    for (size_t i = 0; i < code_.size(); ++i) {
      const char next = i + 1 < code_.size() ? code_[i + 1] : '\0';
      Take(code_[i], next);
      if (code_[i] == '\n') ++line_;
    }
    return std::move(outline_);
  }

 private:
  struct Open {
    Block block;
    std::string head;
    int first_line;
  };

  Block Inside() const { return stack_.empty() ? Block::kNamespace : stack_.back().block; }
  bool InsideFunction() const {
    return std::any_of(stack_.begin(), stack_.end(), [](const Open& open) { return open.block == Block::kFunction; });
  }

  void Take(char c, char next) {
    const bool in_function = InsideFunction();
    if (!in_function && c == '(') ++parentheses_;
    if (!in_function && c == ')') --parentheses_;
    const bool structural = in_function || parentheses_ == 0;
    if (structural && c == '{') return OpenBlock();
    if (structural && c == '}') return CloseBlock();
    if (structural && c == ';') return EndStatement();
    if (c == ':' && next != ':' && Matches(head_, "^\\s*(public|private|protected)\\s*$")) return head_.clear();
    if (head_.empty() && absl::ascii_isspace(static_cast<unsigned char>(c))) return;
    if (head_.empty()) head_line_ = line_;
    head_.push_back(c == '\n' ? ' ' : c);
  }

  void OpenBlock() {
    if (head_.empty()) head_line_ = line_;
    if (InsideFunction()) {
      NoteStaticOfFunction();
      stack_.push_back({Block::kFunction, "", line_});
    } else if (Inside() == Block::kInitializer) {
      stack_.push_back({Block::kInitializer, head_, head_line_});
    } else {
      stack_.push_back({BlockAfter(head_), head_, head_line_});
    }
    head_.clear();
  }

  void CloseBlock() {
    if (stack_.empty()) return;
    if (InsideFunction()) NoteStaticOfFunction();
    const Open closed = std::move(stack_.back());
    stack_.pop_back();
    head_.clear();
    if (closed.block == Block::kFunction && !InsideFunction()) {
      outline_.functions.push_back({closed.head, closed.first_line, line_});
    } else if (closed.block == Block::kInitializer) {
      head_ = closed.head + "{}";
      head_line_ = closed.first_line;
    } else if (closed.block == Block::kClass) {
      head_ = "type_in_place ";  // of "struct {...} name;" what counts is the name
      head_line_ = line_;
    }
  }

  void EndStatement() {
    if (InsideFunction()) {
      NoteStaticOfFunction();
    } else if (Inside() == Block::kNamespace || Inside() == Block::kClass) {
      const Scope scope = Inside() == Block::kClass ? Scope::kClass : Scope::kNamespace;
      outline_.declarations.push_back({head_, head_line_, scope});
    }
    head_.clear();
  }

  void NoteStaticOfFunction() {
    if (!Matches(head_, "^\\s*(static|thread_local)\\b")) return;
    outline_.declarations.push_back({head_, head_line_, Scope::kFunction});
  }

  const absl::string_view code_;
  CodeOutline outline_;
  std::vector<Open> stack_;
  std::string head_;  // since the last end of a statement or block
  int head_line_ = 1;
  int line_ = 1;
  int parentheses_ = 0;
};

}  // namespace

std::string BlankCommentsAndLiterals(absl::string_view code) { return Blanker(code).Run(); }

CodeOutline OutlineOf(absl::string_view blanked) { return Outliner(blanked).Run(); }

bool IsMutableGlobal(const Declaration& declaration) {
  const std::string plain = WithoutTemplateArguments(declaration.text);
  std::string declarator = plain.substr(0, plain.find_first_of("={["));
  if (Matches(declarator,
              "^\\s*(using|typedef|class|struct|enum|union|template|friend|static_assert|namespace|concept|"
              "extern\\s+template)\\b")) {
    return false;
  }
  if (declaration.scope == Scope::kFunction) {
    declarator = declarator.substr(0, declarator.find('('));  // "static T x(argument)": functions declare no functions
  } else if (absl::StrContains(declarator, "(")) {
    return false;  // a function
  }
  if (declaration.scope == Scope::kClass && !Matches(declarator, "\\b(static|thread_local)\\b")) return false;
  if (!Matches(declarator, "\\w[\\s*&]+\\w+\\s*$")) return false;  // not "type name"
  if (Matches(declarator, "\\bconstexpr\\b")) return false;
  if (absl::StrContains(declarator, "*")) return !Matches(declarator, "\\*\\s*const\\b[^*]*$");
  return !Matches(declarator, "\\bconst\\b");
}

}  // namespace shoestring::tidy
