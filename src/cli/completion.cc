#include "cli/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string_view>
#include <vector>

namespace relay::cli {

namespace {

/// A command with its words: "pipelines replay"; "" is the program.
using Visit = std::function<void(const std::string& path, const CommandTree& command)>;

void each_command(const CommandTree& command, const std::string& path, const Visit& visit) {
  visit(path, command);
  for (const CommandTree& inner : command.commands) {
    each_command(inner, path.empty() ? inner.name : path + " " + inner.name, visit);
  }
}

/// In single quotes, as these shells take it.
std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + '\'';
}

/// A name that a function of a shell may have.
std::string function_of(const CommandTree& program) {
  std::string name = "_" + program.name;
  std::ranges::replace(name, '-', '_');
  return name;
}

/// Of the command, and of the program, whose flags belong to all commands.
std::vector<CommandOption> options_of(const CommandTree& command, const CommandTree& program) {
  std::vector<CommandOption> options = command.options;
  if (&command == &program) return options;
  for (const CommandOption& option : program.options) {
    const auto same = std::ranges::find(options, option.names, &CommandOption::names);
    if (same == options.end()) options.push_back(option);
  }
  return options;
}

bool is_path(const CommandOption& option) {
  return option.value == "FILE" || option.value == "DIR";
}

/// The flags that take a value, as patterns of `case`.
std::string flags_with_value(const CommandTree& program) {
  std::vector<std::string> names;
  each_command(program, "", [&](const std::string&, const CommandTree& command) {
    for (const CommandOption& option : command.options) {
      if (option.value.empty()) continue;
      for (const std::string& name : option.names) {
        if (std::ranges::find(names, name) == names.end()) names.push_back(name);
      }
    }
  });
  return fmt::format("{}", fmt::join(names, "|"));
}

/// The paths of all commands, as patterns of `case`.
std::string command_paths(const CommandTree& program) {
  std::vector<std::string> paths;
  each_command(program, "", [&](const std::string& path, const CommandTree&) {
    if (!path.empty()) paths.push_back(in_quotes(path));
  });
  return fmt::format("{}", fmt::join(paths, "|"));
}

/// Code that finds, in the words before the one to be completed, which command is meant. The names
/// of the shells' variables are those of `words` and `last`.
std::string find_command(const CommandTree& program, std::string_view first, std::string_view last,
                         std::string_view word) {
  return fmt::format(R"(  for ((i = {}; i < {}; i++)); do
    case "{}" in
      {}) ((i++)) ;;
      -*) ;;
      *)
        case "${{command:+$command }}{}" in
          {}) command="${{command:+$command }}{}" ;;
        esac ;;
    esac
  done
)",
                     first, last, word, flags_with_value(program), word, command_paths(program),
                     word);
}

std::string all_names(const std::vector<CommandOption>& options) {
  std::vector<std::string> names;
  for (const CommandOption& option : options) {
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return fmt::format("{}", fmt::join(names, " "));
}

std::string bash_value(const CommandOption& option) {
  if (option.value == "FILE") return "COMPREPLY=($(compgen -f -- \"$current\"))";
  if (option.value == "DIR") return "COMPREPLY=($(compgen -d -- \"$current\"))";
  return fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$current\"))",
                     fmt::join(option.choices(), " "));
}

/// What may follow a command in bash: choices of flags, flags, commands and arguments.
void append_bash_case(std::string& out, const std::string& path, const CommandTree& command,
                      const CommandTree& program) {
  const auto options = options_of(command, program);
  std::string values;
  for (const CommandOption& option : options) {
    if (option.value.empty()) continue;
    values += fmt::format("        {}) {}; return ;;\n", fmt::join(option.names, "|"),
                          option.choices().empty() && !is_path(option) ? ":" : bash_value(option));
  }
  std::vector<std::string> words;
  for (const CommandTree& inner : command.commands) words.push_back(inner.name);
  for (const CommandOption& argument : command.arguments) {
    for (const std::string& choice : argument.choices()) words.push_back(choice);
    if (argument.value != "COMMAND") continue;
    for (const CommandTree& inner : program.commands) words.push_back(inner.name);
  }
  out += fmt::format("    {})\n      case \"$before\" in\n{}      esac\n", in_quotes(path), values);
  out += fmt::format("      words={}\n      flags={} ;;\n",
                     in_quotes(fmt::format("{}", fmt::join(words, " "))),
                     in_quotes(all_names(options)));
}

}  // namespace

std::string bash_completion(const CommandTree& program) {
  const std::string function = function_of(program);
  std::string out = fmt::format("# Completion of {} in bash.\n{}() {{\n", program.name, function);
  // bash makes a word of each `=`.
  out += R"(  local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
  local command='' words='' flags='' i
  COMPREPLY=()
  if [ "$current" = '=' ]; then
    current=''
  elif [ "$before" = '=' ] && ((COMP_CWORD > 1)); then
    before="${COMP_WORDS[COMP_CWORD-2]}"
  fi
)";
  out += find_command(program, "1", "COMP_CWORD", "${COMP_WORDS[i]}");
  out += "  case \"$command\" in\n";
  each_command(program, "", [&](const std::string& path, const CommandTree& command) {
    append_bash_case(out, path, command, program);
  });
  out += fmt::format(R"(  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$current")) ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
  esac
}}
complete -F {} {}
)",
                     function, program.name);
  return out;
}

namespace {

/// 'name:what it means', as _describe takes it.
std::string described(std::string_view name, std::string_view meaning) {
  std::string text;
  for (const char c : name) {
    if (c == ':') text += '\\';
    text += c;
  }
  return in_quotes(fmt::format("{}:{}", text, meaning));
}

std::string zsh_value(const CommandOption& option) {
  if (option.value == "FILE") return "_files";
  if (option.value == "DIR") return "_files -/";
  if (option.choices().empty()) return "_message " + in_quotes(option.value);
  return fmt::format("compadd -- {}", fmt::join(option.choices(), " "));
}

void append_zsh_case(std::string& out, const std::string& path, const CommandTree& command,
                     const CommandTree& program) {
  const auto options = options_of(command, program);
  std::string values;
  std::string flags;
  for (const CommandOption& option : options) {
    for (const std::string& name : option.names) flags += " " + described(name, option.meaning);
    if (option.value.empty()) continue;
    values +=
        fmt::format("        {}) {}; return ;;\n", fmt::join(option.names, "|"), zsh_value(option));
  }
  std::string commands;
  for (const CommandTree& inner : command.commands) {
    commands += " " + described(inner.name, inner.about);
  }
  for (const CommandOption& argument : command.arguments) {
    for (const std::string& choice : argument.choices()) {
      commands += " " + described(choice, argument.meaning);
    }
    if (argument.value != "COMMAND") continue;
    for (const CommandTree& inner : program.commands) {
      commands += " " + described(inner.name, inner.about);
    }
  }
  out += fmt::format(
      "    {})\n      case \"$words[CURRENT-1]\" in\n{}      esac\n      commands=({})\n"
      "      flags=({}) ;;\n",
      in_quotes(path), values, commands, flags);
}

}  // namespace

std::string zsh_completion(const CommandTree& program) {
  const std::string function = function_of(program);
  std::string out = fmt::format(
      "#compdef {0}\n# Completion of {0} in zsh.\n{1}() {{\n"
      "  local command='' i\n  local -a commands flags\n",
      program.name, function);
  out += find_command(program, "2", "CURRENT", "$words[i]");
  out += "  case \"$command\" in\n";
  each_command(program, "", [&](const std::string& path, const CommandTree& command) {
    append_zsh_case(out, path, command, program);
  });
  out += fmt::format(R"(  esac
  if [[ "$words[CURRENT]" == -* ]]; then
    _describe -o 'flag' flags
  else
    _describe 'command' commands
  fi
}}
if [ "$funcstack[1]" = {0} ]; then
  {0} "$@"
else
  compdef {0} {1}
fi
)",
                     function, program.name);
  return out;
}

std::string fish_completion(const CommandTree& program) {
  const std::string function = "_" + function_of(program) + "_is";
  std::string out = fmt::format("# Completion of {} in fish.\n", program.name);
  // The words before the one to be completed, without flags and their values, name the command.
  out += fmt::format(R"(function {}
  set -l path
  set -l skip 0
  for word in (commandline -opc)[2..-1]
    if test $skip = 1
      set skip 0
      continue
    end
    switch $word
      case {}
        set skip 1
      case '-*'
      case '*'
        set -l longer (string join ' ' $path $word)
        if contains -- $longer {}
          set path $path $word
        end
    end
  end
  set -l command (string join ' ' $path)
  test "$command" = "$argv[1]"
end
complete -c {} -f
)",
                     function,
                     [&] {
                       std::string flags = flags_with_value(program);
                       std::ranges::replace(flags, '|', ' ');
                       return flags;
                     }(),
                     [&] {
                       std::string paths;
                       each_command(program, "", [&](const std::string& path, const CommandTree&) {
                         if (!path.empty()) paths += (paths.empty() ? "" : " ") + in_quotes(path);
                       });
                       return paths;
                     }(),
                     program.name);
  each_command(program, "", [&](const std::string& path, const CommandTree& command) {
    const std::string condition = fmt::format("complete -c {} -n {}", program.name,
                                              in_quotes(fmt::format("{} \"{}\"", function, path)));
    for (const CommandTree& inner : command.commands) {
      out += fmt::format("{} -a {} -d {}\n", condition, inner.name, in_quotes(inner.about));
    }
    for (const CommandOption& argument : command.arguments) {
      for (const std::string& choice : argument.choices()) {
        out += fmt::format("{} -a {} -d {}\n", condition, choice, in_quotes(argument.meaning));
      }
      if (argument.value != "COMMAND") continue;
      for (const CommandTree& inner : program.commands) {
        out += fmt::format("{} -a {} -d {}\n", condition, inner.name, in_quotes(inner.about));
      }
    }
    for (const CommandOption& option : options_of(command, program)) {
      std::string line = condition;
      for (const std::string& name : option.names) {
        line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      if (!option.value.empty()) line += is_path(option) ? " -r -F" : " -x";
      if (!option.choices().empty()) {
        line += " -a " + in_quotes(fmt::format("{}", fmt::join(option.choices(), " ")));
      }
      out += fmt::format("{} -d {}\n", line, in_quotes(option.meaning));
    }
  });
  return out;
}

}  // namespace relay::cli
