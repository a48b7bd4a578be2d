. /work/notes/r6/env.sh; B="--n 20000 --visits 10000 --bf16 --cl"
py /work/notes/r6/exp.py $B --name base10 > /work/notes/r6/base10.log 2>&1
py /work/notes/r6/exp.py $B --head flat --name flat > /work/notes/r6/flat.log 2>&1
py /work/notes/r6/exp.py $B --branches factual --name fact > /work/notes/r6/fact.log 2>&1
py /work/notes/r6/exp.py $B --lr 3e-3 --name lr3 > /work/notes/r6/lr3.log 2>&1
