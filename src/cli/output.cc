#include "cli/output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "cli/table_layout.h"
#include "cli/text_width.h"
#include "config/redaction.h"
#include "core/deadline.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{30};
constexpr std::size_t kWidest = 100;

/// The cells of rows, row by row, without secrets. `line`: as a line of a terminal takes them.
std::vector<std::vector<std::string>> cells_of(const postgres::Rows& rows, bool line) {
  std::vector<std::vector<std::string>> cells;
  for (int row = 0; row < rows.size(); ++row) {
    std::vector<std::string>& texts = cells.emplace_back();
    for (int column = 0; column < PQnfields(rows.get()); ++column) {
      texts.push_back(config::redacted_column(PQfname(rows.get(), column), rows.text(row, column)));
      if (line) texts.back() = printable(texts.back());
    }
  }
  return cells;
}

std::string padded(std::string text, std::size_t columns) {
  const std::size_t used = text_width(text);
  if (used < columns) text.append(columns - used, ' ');
  return text;
}

Colour colour_of(std::string_view column, std::string_view text) {
  if (column == "last_error" || column == "outbox_problem") return Colour::red;
  if (column != "state") return Colour::none;
  if (text == "running" || text == "alive" || text == "idle") return Colour::green;
  const bool waits = text == "paused" || text == "disabled" || text == "unowned" ||
                     text == "starting" || text == "standby" || text == "gone";
  return waits ? Colour::yellow : Colour::red;
}

std::vector<std::string> names_of(const postgres::Rows& rows) {
  std::vector<std::string> names;
  const int columns = rows.get() ? PQnfields(rows.get()) : 0;
  for (int column = 0; column < columns; ++column) names.emplace_back(PQfname(rows.get(), column));
  return names;
}

/// For a file or another program: nothing is cut or left out.
void print_plain(const postgres::Rows& rows) {
  const std::vector<std::string> names = names_of(rows);
  const auto cells = cells_of(rows, false);
  std::vector<std::size_t> widths;
  for (std::size_t column = 0; column < names.size(); ++column) {
    std::size_t widest = text_width(names[column]);
    for (const auto& row : cells) widest = std::max(widest, text_width(row[column]));
    widths.push_back(std::min(widest, kWidest) + 2);
  }
  const auto print_row = [&](const std::vector<std::string>& row) {
    for (std::size_t column = 0; column < row.size(); ++column) {
      const bool last = column + 1 == row.size();
      fmt::print("{}", last ? row[column] : padded(row[column], widths[column]));
    }
    fmt::print("\n");
  };
  print_row(names);
  for (const auto& row : cells) print_row(row);
}

}  // namespace

std::vector<std::string> table_lines(const Terminal& terminal, std::span<const std::string> names,
                                     std::span<const std::vector<std::string>> cells,
                                     const CellColour& colour_of_cell,
                                     std::vector<std::string>& left_out) {
  std::vector<ColumnNeed> needs;
  for (std::size_t column = 0; column < names.size(); ++column) {
    std::size_t widest = text_width(names[column]);
    for (const auto& row : cells) widest = std::max(widest, text_width(row[column]));
    needs.push_back({widest, importance_of(names[column])});
  }
  const std::vector<std::size_t> widths = lay_out(needs, terminal.size().columns);
  const auto line_of = [&](std::span<const std::string> row, const auto& colour) {
    std::string line;
    std::size_t gap = 0;
    for (std::size_t column = 0; column < row.size(); ++column) {
      if (widths[column] == 0) continue;
      const std::string text = cut(row[column], widths[column], terminal.ellipsis());
      line.append(gap, ' ');
      line += terminal.painted(colour(column), text);
      gap = widths[column] + 2 - std::min(widths[column] + 2, text_width(text));
    }
    return line;
  };
  std::vector<std::string> lines{line_of(names, [](std::size_t) { return Colour::bold; })};
  for (std::size_t row = 0; row < cells.size(); ++row) {
    lines.push_back(
        line_of(cells[row], [&](std::size_t column) { return colour_of_cell(row, column); }));
  }
  for (std::size_t column = 0; column < names.size(); ++column) {
    if (widths[column] == 0) left_out.push_back(names[column]);
  }
  return lines;
}

void print_table(const postgres::Rows& rows) {
  const Terminal& out = Terminal::out();
  if (!out.is_terminal) return print_plain(rows);
  const std::vector<std::string> names = names_of(rows);
  const auto cells = cells_of(rows, true);
  const auto colour = [&](std::size_t row, std::size_t column) {
    return colour_of(names[column], cells[row][column]);
  };
  std::vector<std::string> left_out;
  for (const std::string& line : table_lines(out, names, cells, colour, left_out)) {
    fmt::print("{}\n", line);
  }
  if (left_out.empty() || rows.empty()) return;
  fmt::print("{}\n", out.painted(Colour::dim, fmt::format("not shown, for the window is narrow: {}",
                                                          fmt::join(left_out, ", "))));
}

void print_record(const postgres::Rows& rows) {
  const Terminal& out = Terminal::out();
  const std::vector<std::string> names = names_of(rows);
  const auto cells = cells_of(rows, out.is_terminal);
  std::size_t widest = 0;
  for (const std::string& name : names) widest = std::max(widest, text_width(name));
  for (int row = 0; row < rows.size(); ++row) {
    if (row > 0) std::fputc('\n', stdout);
    for (std::size_t column = 0; column < names.size(); ++column) {
      if (rows.is_null(row, static_cast<int>(column))) continue;
      const std::string& text = cells[static_cast<std::size_t>(row)][column];
      const std::string name = out.painted(Colour::bold, padded(names[column], widest + 2));
      if (!out.is_terminal) {
        fmt::print("{}{}\n", name, text);
        continue;
      }
      const std::size_t columns = out.size().columns;
      std::string begin = name;
      for (const std::string& line : wrapped(text, columns - std::min(columns - 10, widest + 2))) {
        fmt::print("{}{}\n", begin, out.painted(colour_of(names[column], text), line));
        begin.assign(widest + 2, ' ');
      }
    }
  }
}

int print_json(postgres::Connection& connection, std::string_view sql,
               std::initializer_list<postgres::Param> params) {
  const auto rows = connection.query(sql, params, Deadline::after(kTimeout), {});
  if (!rows) return failed(rows.error());
  fmt::print("{}\n", config::redacted_rows(rows->text(0, 0)));
  return kOk;
}

int print_query(const Context& context, postgres::Connection& connection, std::string_view sql,
                std::initializer_list<postgres::Param> params, Shape shape) {
  if (context.json) {
    return print_json(connection,
                      fmt::format("select coalesce(json_agg(t), '[]')::text from ({}) t", sql),
                      params);
  }
  const auto rows = connection.query(sql, params, Deadline::after(kTimeout), {});
  if (!rows) return failed(rows.error());
  const bool vertical = shape == Shape::record && Terminal::out().is_terminal && rows->size() == 1;
  vertical ? print_record(*rows) : print_table(*rows);
  return kOk;
}

}  // namespace relay::cli
