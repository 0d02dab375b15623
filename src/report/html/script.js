'use strict';
(function(){
var list=document.getElementById('list'),root=document.documentElement;
var theme=document.getElementById('theme');
var dark=function(){var set=root.dataset.theme;return set?set==='dark':matchMedia('(prefers-color-scheme: dark)').matches;};
var name=function(){theme.textContent=dark()?'Light':'Dark';};
theme.hidden=false;name();
theme.addEventListener('click',function(){root.dataset.theme=dark()?'light':'dark';name();});
if(!list)return;
var all=Array.prototype.slice.call(list.children),texts=null;
var search=document.getElementById('search'),open=document.getElementById('open');
var found=document.getElementById('found'),nothing=document.getElementById('nothing');
search.hidden=open.hidden=false;
search.addEventListener('input',function(){
  texts=texts||all.map(function(one){return one.textContent.toLowerCase();});
  var words=search.value.toLowerCase().split(/\s+/).filter(Boolean),shown=0;
  all.forEach(function(one,at){
    var fits=words.every(function(word){return texts[at].indexOf(word)>=0;});
    one.hidden=!fits;shown+=fits;
  });
  found.textContent=words.length?shown+' of '+all.length+' match':'';
  nothing.hidden=shown>0;
});
var opened=false;
open.addEventListener('click',function(){
  opened=!opened;
  all.forEach(function(one){if(!one.hidden)one.open=opened;});
  open.textContent=opened?'Close all':'Open all';
});
var before=[];
addEventListener('beforeprint',function(){before=all.filter(function(one){return !one.open;});before.forEach(function(one){one.open=true;});});
addEventListener('afterprint',function(){before.forEach(function(one){one.open=false;});});
if(location.hash){var at=document.getElementById(location.hash.slice(1));if(at)at.open=true;}
})();
