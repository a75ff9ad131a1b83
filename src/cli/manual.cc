#include "cli/manual.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace relay::cli {

namespace {

/// Text of a page: a hyphen that can be typed, no backslash that begins a request, no dot or quote
/// that begins a line.
std::string roff(std::string_view text) {
  std::string out;
  bool line_begins = true;
  for (const char c : text) {
    if (line_begins && (c == '.' || c == '\'')) out += "\\&";
    line_begins = c == '\n';
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '`') {
      out += "\\(ga";
    } else if (c == '^') {
      out += "\\(ha";
    } else if (c == '~') {
      out += "\\(ti";
    } else {
      out += c;
    }
  }
  return out;
}

/// An argument of a macro.
std::string argument(std::string_view text) {
  std::string out = "\"";
  for (const char c : roff(text)) {
    if (c == '"') {
      out += "\\(dq";
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string upper_case(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return out;
}

void append_paragraphs(std::string& out, std::string_view text) {
  while (!text.empty()) {
    const auto end = std::min(text.find("\n\n"), text.size());
    const auto line = out.rfind('\n', out.size() - 2) + 1;
    const bool is_first = out.compare(line, 3, ".SH") == 0;
    out += fmt::format("{}{}\n", is_first ? "" : ".PP\n", roff(text.substr(0, end)));
    text.remove_prefix(std::min(end + 2, text.size()));
  }
}

void append_options(std::string& out, const std::vector<CommandOption>& options) {
  for (const CommandOption& option : options) {
    out += fmt::format(".TP\n\\fB{}\\fR", roff(fmt::format("{}", fmt::join(option.names, ", "))));
    if (!option.value.empty()) out += fmt::format(" \\fI{}\\fR", roff(option.value));
    out +=
        fmt::format("\n{}{}\n", roff(option.meaning), option.required ? roff(" (required)") : "");
  }
}

std::string synopsis(const CommandTree& command, const std::string& path) {
  std::string line = fmt::format("\\fB{}\\fR", roff(path));
  for (const CommandOption& taken : command.arguments) {
    const std::string name = fmt::format("\\fI{}\\fR", roff(upper_case(taken.names.front())));
    line += taken.required ? " " + name : " [" + name + "]";
  }
  for (const CommandOption& option : command.options) {
    if (!option.required) continue;
    line += fmt::format(" \\fB{}\\fR \\fI{}\\fR", roff(option.names.front()), roff(option.value));
  }
  return line;
}

/// Flags of the program itself are listed once, and not with each command.
std::vector<CommandOption> own_options(const CommandTree& command, const CommandTree& program) {
  std::vector<CommandOption> own;
  for (const CommandOption& option : command.options) {
    const auto same = std::ranges::find(program.options, option.names, &CommandOption::names);
    if (same == program.options.end()) own.push_back(option);
  }
  return own;
}

void append_command(std::string& out, const CommandTree& command, const std::string& path,
                    const CommandTree& program) {
  out += fmt::format(".SS {}\n{}\n", argument(path), synopsis(command, path));
  append_paragraphs(out, command.about);
  append_options(out, command.arguments);
  append_options(out, own_options(command, program));
  append_paragraphs(out, command.footer);
  for (const CommandTree& inner : command.commands) {
    append_command(out, inner, path + " " + inner.name, program);
  }
}

void append_table(std::string& out, const ManualTable& table) {
  if (table.fields.empty()) return;
  out += fmt::format(".SS {}\n", argument(table.title));
  for (const config::Field& field : table.fields) {
    out += fmt::format(".TP\n\\fB{}\\fR ({}{})\n", roff(field.name),
                       roff(config::name_of(field.type)), field.required ? ", required" : "");
    std::string meaning(field.meaning.empty() ? field.name : field.meaning);
    if (!field.choices.empty()) meaning += fmt::format("; one of {}", field.choices);
    if (!field.default_text.empty()) meaning += fmt::format("; default {}", field.default_text);
    if (!field.aliases.empty()) meaning += fmt::format("; also {}", field.aliases);
    out += roff(meaning) + '\n';
  }
}

}  // namespace

std::string manual_page(const CommandTree& program, const ManualPage& page) {
  std::string out = fmt::format(
      ".TH {} 1 \"\" {} \"User Commands\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n\\fB{}\\fR "
      "[\\fICOMMAND\\fR] [\\fIFLAGS\\fR]\n.SH DESCRIPTION\n",
      argument(upper_case(program.name)), argument(program.name + " " + page.version),
      roff(program.name), roff(program.about), roff(program.name));
  append_paragraphs(out, page.description);
  out += ".SH COMMANDS\n";
  for (const CommandTree& command : program.commands) {
    append_command(out, command, program.name + " " + command.name, program);
  }
  out += ".SH FLAGS\nThey belong to each command.\n";
  append_options(out, program.options);
  if (!page.tables.empty()) out += ".SH CONFIGURATION\n";
  for (const ManualTable& table : page.tables) append_table(out, table);
  out += R"(.SH EXIT STATUS
.TP
.B 0
It is done.
.TP
.B 1
It failed.
.TP
.B 2
The command line is wrong.
.TP
.B 3
The configuration is wrong.
)";
  if (!page.see_also.empty()) out += ".SH SEE ALSO\n";
  for (const std::string& other : page.see_also) {
    const auto bracket = other.find('(');
    out += fmt::format(".BR {} {}{}\n", roff(other.substr(0, bracket)), other.substr(bracket),
                       &other == &page.see_also.back() ? "" : ",");
  }
  return out;
}

}  // namespace relay::cli
