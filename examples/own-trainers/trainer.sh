#!/bin/sh
# The whole contract in shell: read the environment, train with whatever you have, write one JSON document.
# Here "training" is a formula, so that the example runs anywhere; the two lines after it are what matters.
set -eu

records=""
for tokens in $(echo "$SCALINGSWEEP_TOKENS" | tr ',' ' '); do
  # yourtrainer --parameters "$SCALINGSWEEP_PARAMETERS" --tokens "$tokens" --seed "$SCALINGSWEEP_SEED" …
  loss=$(awk -v n="$SCALINGSWEEP_PARAMETERS" -v d="$tokens" 'BEGIN { print 1.69 + 406.4 / n^0.34 + 410.7 / d^0.28 }')
  records="$records${records:+,}{\"tokens\": $tokens, \"loss\": $loss}"
done

# Beside its place, then renamed: nobody ever sees half a document.
printf '{"records": [%s]}\n' "$records" > "$SCALINGSWEEP_REPORT.new"
mv "$SCALINGSWEEP_REPORT.new" "$SCALINGSWEEP_REPORT"
