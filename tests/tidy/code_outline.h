// A rough reading of C++: enough to measure functions and to find variables with static lifetime.
//
// No parser: it matches braces over code from which comments, literals and preprocessor lines are blanked. It knows the
// style of this repository and may misjudge code that clang-format would not let stand.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace shoestring::tidy {

// The same text, line by line, with comments, preprocessor lines and the insides of literals turned to blanks.
std::string BlankCommentsAndLiterals(absl::string_view code);

struct Function {
  std::string head;  // "int F(int x)"
  int first_line = 0, last_line = 0;

  int lines() const { return last_line - first_line + 1; }
};

enum class Scope { kNamespace, kClass, kFunction };

struct Declaration {
  std::string text;  // "static int calls = 0", brace initialisers shown as {}
  int line = 0;
  Scope scope = Scope::kNamespace;
};

struct CodeOutline {
  std::vector<Function> functions;        // outermost ones; a lambda or local class belongs to its function
  std::vector<Declaration> declarations;  // statements of namespaces and classes, and statics of functions
};

// `blanked` comes from BlankCommentsAndLiterals.
CodeOutline OutlineOf(absl::string_view blanked);

// Whether the declaration makes a variable that lives as long as the program or thread, and that can be assigned to.
bool IsMutableGlobal(const Declaration& declaration);

}  // namespace shoestring::tidy
