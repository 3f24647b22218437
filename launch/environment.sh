# shellcheck shell=bash
# What the launch scripts share: they set ROOT, the checkout, and source this file.
PYTHON=${PYTHON:-python3}
VENV=${VENV:-$ROOT/.venv}

# Create a virtual environment in $VENV and install the package with EXTRAS, such as "[test]".
# Usage: prepare_environment EXTRAS
prepare_environment() {
  local extras=$1 stamp="$VENV/.installed$1"
  if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $PYTHON is not Python 3.11 or newer; try PYTHON=python3.12." >&2
    exit 2
  fi
  [ -x "$VENV/bin/pip" ] || "$PYTHON" -m venv "$VENV"
  # Reinstall only if the dependencies may have changed.
  if [ ! "$stamp" -nt "$ROOT/pyproject.toml" ]; then
    echo "installing into $VENV"
    # Python compiles the modules that are imported; pip would compile all 9000.
    "$VENV/bin/pip" install --quiet --no-compile --editable "$ROOT$extras"
    touch "$stamp"
  fi
}

# Run a command, or print it if DRY_RUN is 1.
# Usage: run_or_show DRY_RUN COMMAND...
run_or_show() {
  local dry_run=$1 word
  shift
  if [ "$dry_run" = 0 ]; then
    "$@"
    return
  fi
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then printf '%s ' "$word"; else printf '%s ' "${word@Q}"; fi
  done
  echo
}
