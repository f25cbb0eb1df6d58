"""How the report looks. No fonts, scripts or pictures from elsewhere."""

STYLE = """
:root{--paper:#fcfcfb;--card:#fff;--ink:#18202b;--faint:#626d7d;--rule:#e3e6ea;--wash:#f3f4f6;
--direct:#9aa3af;--us:#3b7dd8;--cached:#0a8f7c;--short:#6ec7b3;--pgbouncer:#d97b1f;--pgpool:#9a5bd0;--floor:#c3c9d1;--other:#b5487a;
--good:#157f4c;--bad:#b3382c;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--paper:#11151b;--card:#181d25;--ink:#e7eaee;--faint:#97a1af;--rule:#2a313c;--wash:#1f2630;
--direct:#7f8996;--us:#5f9df0;--cached:#2cc0a8;--short:#1f7f70;--pgbouncer:#eb9a4b;--pgpool:#b98ae6;--floor:#4b5563;--other:#e07fab;
--good:#45c48a;--bad:#ff8174}}
*{box-sizing:border-box}html{scroll-behavior:smooth;scroll-padding-top:52px}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header>div{max-width:1000px;margin:0 auto;padding:0 24px}main{padding-bottom:80px}
header{padding:44px 0 8px}h1{font-size:30px;letter-spacing:-.02em;margin:0 0 4px}
h1{max-width:22ch;line-height:1.15;font-size:40px}.lead{font-size:18px;margin:8px 0 10px}
h2{font-size:22px;letter-spacing:-.01em;margin:56px 0 4px;padding-top:22px;border-top:2px solid var(--ink)}
h3{font-size:17px;margin:34px 0 4px}
p{margin:4px 0 14px;max-width:80ch}.sub,small,.tick{color:var(--faint)}.sub{font-size:13px}
.bar{position:sticky;top:0;background:var(--paper);border-bottom:1px solid var(--rule);z-index:1;padding:10px 0;margin-bottom:18px;
display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;align-items:center}
.bar a{color:var(--ink);text-decoration:none;font-weight:600}.bar a:hover{text-decoration:underline}.bar .keys{margin-left:auto}
.bar .keys{display:flex;flex-wrap:wrap;gap:2px 14px}.key{white-space:nowrap}.key i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:5px;vertical-align:-1px}
i.direct{background:var(--direct)}i.us{background:var(--us)}i.cached{background:var(--cached)}i.short{background:var(--short)}i.pgbouncer{background:var(--pgbouncer)}
i.pgpool{background:var(--pgpool)}i.floor{background:var(--floor)}i.other{background:var(--other)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:14px;margin:18px 0 10px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:16px 18px}
.card b{display:block;white-space:nowrap;font-size:30px;line-height:1.1;letter-spacing:-.03em;font-variant-numeric:tabular-nums}
.card span{display:block;font-size:14px;margin-top:4px}.card small{display:block;margin-top:6px}
figure{margin:16px 0;padding:14px 18px;background:var(--card);border:1px solid var(--rule);border-radius:10px;min-width:0}
figcaption{font-weight:600;font-size:14px;margin-bottom:8px}figcaption small{font-weight:400}
.two{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(400px,100%),1fr));gap:0 16px}
svg{width:100%;height:auto;display:block;font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
svg text{fill:var(--ink)}svg .tick,svg .small{font-size:11.5px}svg .tick,svg .head{fill:var(--faint)}svg .head{font-size:11.5px}
svg .value{font-variant-numeric:tabular-nums;font-size:12px}
.direct{fill:var(--direct)}.us{fill:var(--us)}.cached{fill:var(--cached)}.short{fill:var(--short)}.pgbouncer{fill:var(--pgbouncer)}.pgpool{fill:var(--pgpool)}
.floor{fill:var(--floor)}.other{fill:var(--other)}
.dot{fill:var(--ink);fill-opacity:.5}.grid{stroke:var(--rule)}.span{stroke:var(--rule);stroke-width:4;stroke-linecap:round}
.ring{stroke:var(--card);stroke-width:2}.mark{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:3 2}
.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}
.curve.again{stroke-dasharray:5 4}.curve.direct{stroke:var(--direct)}.curve.us{stroke:var(--us)}.curve.cached{stroke:var(--cached)}.curve.short{stroke:var(--short)}.curve.pgbouncer{stroke:var(--pgbouncer)}
.curve.pgpool{stroke:var(--pgpool)}.curve.floor{stroke:var(--floor)}.curve.other{stroke:var(--other)}
svg.bullet{width:120px;height:14px;display:inline-block;vertical-align:middle}.track{fill:var(--wash)}rect.met{fill:var(--good)}
rect.missed{fill:var(--bad)}.goal{stroke:var(--ink);stroke-width:1.5}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:6px 14px 6px 0;border-bottom:1px solid var(--rule);vertical-align:top}th{color:var(--faint);font-weight:500}
td.group{font-weight:600;padding-top:14px}.n{text-align:right;white-space:nowrap}
b.met{color:var(--good)}b.missed{color:var(--bad)}b.met,b.missed{white-space:nowrap;font-weight:600}
details.targets{margin:0 0 18px}details.targets>summary{color:var(--ink);font-size:16px;font-weight:600;padding:8px 0}
details.targets table{table-layout:fixed;min-width:930px}
details{margin:8px 0}summary{cursor:pointer;color:var(--faint);font-size:13px}
@media(max-width:700px){figure{overflow-x:auto}figure>svg{min-width:640px}.two figure>svg{min-width:0}h1{font-size:32px}}
ul{padding-left:20px;font-size:13.5px;color:var(--faint)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;font-size:13px}dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}
"""
